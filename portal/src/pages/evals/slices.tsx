import type { ReportSide } from "../../api/types";
import { useText } from "../../i18n";
import { type Column, Interval, Table, useFormat } from "../../ui";

type Slice = ReportSide["slices"][number];

/** How well a model agrees on the items of each metadata value: where it is weak. */
export function Slices({ side }: { side: ReportSide }) {
  const t = useText();
  const format = useFormat();
  const columns: Column<Slice>[] = [
    { key: "key", header: t("evals.slice_key"), cell: (slice) => <span className="said">{slice.key}</span> },
    { key: "value", header: t("evals.slice_value"), cell: (slice) => <span className="said">{slice.value}</span> },
    { key: "items", header: t("evals.items"), align: "end", cell: (slice) => format.number(slice.agreement.total) },
    { key: "agreement", header: t("evals.agreement"), cell: (slice) => <Interval {...slice.agreement} /> },
  ];
  const title = t("evals.slices", { name: side.name });
  return (
    <section className="stack">
      <h2 className="said">{title}</h2>
      <Table
        label={title}
        columns={columns}
        rows={side.slices}
        rowKey={(slice) => JSON.stringify([slice.key, slice.value])}
      />
    </section>
  );
}
