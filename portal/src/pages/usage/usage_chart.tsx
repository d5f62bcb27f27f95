import { useText } from "../../i18n";
import { type BarColor, DAY_SECONDS, DayBars, type Stack, useFormat } from "../../ui";
import { type Group, groupIn, type Measure, measured, nameIn, summed, type UsageRow } from "./groups";
import { daysBetween, type Range, secondsOf } from "./range";
import { useGroupName } from "./use_group_name";

const SHOWN = 5;
const NAMED: BarColor[] = ["1", "2", "3", "4", "5"];

interface UsageChartProps {
  /** By day and group. */
  rows: UsageRow[];
  group: Group;
  measure: Measure;
  range: Range;
}

/** Each day's amount, in parts for the largest groups and one for the others. */
export function UsageChart({ rows, group, measure, range }: UsageChartProps) {
  const t = useText();
  const format = useFormat();
  const nameOf = useGroupName(group);
  const days = daysOf(rows, range);
  const largest = group === "day" ? [] : largestGroups(rows, group, measure);
  const stacks: Stack[] = largest.slice(0, SHOWN).map(([key, name], at) => ({
    label: nameOf(name),
    color: NAMED[at] ?? "rest",
    values: valuesOf(
      rows.filter((row) => groupIn(row, group) === key),
      days,
      measure,
    ),
  }));
  const others = new Set(largest.slice(SHOWN).map(([key]) => key));
  if (group === "day") {
    stacks.push({ label: t(`usage.show_${measure}`), color: "1", values: valuesOf(rows, days, measure) });
  } else if (others.size > 0) {
    const rest = rows.filter((row) => others.has(groupIn(row, group)));
    stacks.push({
      label: t("usage.others", { count: others.size }),
      color: "rest",
      values: valuesOf(rest, days, measure),
    });
  }
  const total = measured(summed(rows), measure);
  const write = measure === "money" ? format.money : format.number;
  return (
    <section className="card stack">
      <div className="spread">
        <h2>{t(`usage.chart_${measure}`)}</h2>
        <strong className="number">{write(total)}</strong>
      </div>
      <DayBars label={t(`usage.chart_${measure}`)} days={days} stacks={stacks} format={write} />
    </section>
  );
}

/** The groups that amount to anything, the largest first, with their names. */
function largestGroups(rows: UsageRow[], group: Group, measure: Measure): [string, string | null][] {
  const sums = new Map<string, number>();
  const names = new Map<string, string | null>();
  for (const row of rows) {
    const key = groupIn(row, group);
    sums.set(key, (sums.get(key) ?? 0) + measured(row, measure));
    names.set(key, nameIn(row, group));
  }
  return [...sums]
    .filter(([, amount]) => amount > 0)
    .sort((one, other) => other[1] - one[1])
    .map(([key]) => [key, names.get(key) ?? null]);
}

function daysOf(rows: UsageRow[], range: Range): number[] {
  const found = rows.map((row) => secondsOf(row.day ?? null)).filter((day) => day !== null);
  const today = Math.floor(Date.now() / 1000 / DAY_SECONDS) * DAY_SECONDS;
  const first = range.since || Math.min(today, ...found);
  const last = range.until === null ? today : Math.min(today, range.until - DAY_SECONDS);
  return daysBetween(first, Math.max(first, last, ...found));
}

function valuesOf(rows: UsageRow[], days: number[], measure: Measure): number[] {
  const sums = new Map<number, number>();
  for (const row of rows) {
    const day = secondsOf(row.day ?? null);
    if (day !== null) sums.set(day, (sums.get(day) ?? 0) + measured(row, measure));
  }
  return days.map((day) => sums.get(day) ?? 0);
}
