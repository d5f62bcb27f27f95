import { useText } from "../../i18n";
import { type Column, Table, useFormat } from "../../ui";
import { type Group, groupIn, nameIn, summed, type UsageRow } from "./groups";
import { useColumnMoney } from "./use_column_money";
import { useGroupName } from "./use_group_name";

const HOUR_SECONDS = 3600;

/** Everything that was counted, by group, and its sum. */
export function UsageTable({ rows, group }: { rows: UsageRow[]; group: Group }) {
  const t = useText();
  const format = useFormat();
  const nameOf = useGroupName(group);
  const sum = summed(rows);
  const money = useColumnMoney(rows);
  const ordered =
    group === "day"
      ? [...rows].sort((one, other) => (other.day ?? "").localeCompare(one.day ?? ""))
      : [...rows].sort((one, other) => other.cost_usd - one.cost_usd || other.events - one.events);
  const amount = (key: string, header: string, value: (row: UsageRow) => number): Column<UsageRow> => ({
    key,
    header,
    align: "end",
    cell: (row) => <span className={value(row) ? "" : "quiet"}>{format.number(value(row))}</span>,
  });
  const columns: Column<UsageRow>[] = [
    {
      key: "group",
      header: t(`usage.by_${group}`),
      wide: true,
      cell: (row) =>
        row === sum ? (
          t("usage.total")
        ) : (
          <span className={nameIn(row, group) === null ? "quiet" : "said"}>{nameOf(nameIn(row, group))}</span>
        ),
    },
    amount("calls", t("usage.calls"), (row) => row.events),
    amount("prompt", t("usage.prompt"), (row) => row.prompt_tokens),
    amount("cached", t("usage.cached"), (row) => row.cached_tokens),
    amount("completion", t("usage.completion"), (row) => row.completion_tokens),
    // Few have students that know their prompt by heart: the others have no use for a column of zeros.
    ...(sum.saved_prompt_tokens ? [amount("saved", t("usage.saved"), (row) => row.saved_prompt_tokens)] : []),
    amount("trained", t("usage.trained"), (row) => row.trained_tokens),
    amount("hosted", t("usage.hosted"), (row) => Math.round((row.hosted_seconds / HOUR_SECONDS) * 100) / 100),
    {
      key: "cost",
      header: t("usage.cost"),
      align: "end",
      cell: (row) => (row === sum ? money.sum : money.write(row.cost_usd)),
    },
  ];
  return (
    <Table label={t("usage.table")} columns={columns} rows={ordered} rowKey={(row) => groupIn(row, group)} foot={sum} />
  );
}
