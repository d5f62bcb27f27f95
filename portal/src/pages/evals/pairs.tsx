import type { Report } from "../../api/types";
import { useText } from "../../i18n";
import { type Column, Table, useFormat } from "../../ui";

type Pair = Report["pairs"][number];

/** Each two models: on how many items only one of them agrees with the teacher, and how likely that is by chance. */
export function Pairs({ report }: { report: Report }) {
  const t = useText();
  const format = useFormat();
  const names = new Map(report.sides.map((side) => [side.run_id, side.name]));
  const columns: Column<Pair>[] = [
    {
      key: "one",
      header: t("evals.pair_first"),
      cell: (pair) => (
        <span className="said">
          {t("evals.pair_agrees", { name: names.get(pair.run_id) ?? pair.run_id, count: pair.only_this_agrees })}
        </span>
      ),
    },
    {
      key: "other",
      header: t("evals.pair_second"),
      cell: (pair) => (
        <span className="said">
          {t("evals.pair_agrees", {
            name: names.get(pair.beside_run_id) ?? pair.beside_run_id,
            count: pair.only_beside_agrees,
          })}
        </span>
      ),
    },
    { key: "items", header: t("evals.pair_items"), align: "end", cell: (pair) => format.number(pair.items) },
    {
      key: "p",
      header: t("evals.pair_chance"),
      align: "end",
      cell: (pair) => (pair.p_value === null ? t("evals.pair_same") : `p = ${significant(pair.p_value)}`),
    },
  ];
  return (
    <section className="stack">
      <div>
        <h2>{t("evals.pairs")}</h2>
        <p className="page-text">{t("evals.pairs_text")}</p>
      </div>
      <Table
        label={t("evals.pairs")}
        columns={columns}
        rows={report.pairs}
        rowKey={(pair) => `${pair.run_id} ${pair.beside_run_id}`}
      />
    </section>
  );
}

const significant = (value: number): string => (value < 0.0001 ? "< 0.0001" : String(Number(value.toPrecision(2))));
