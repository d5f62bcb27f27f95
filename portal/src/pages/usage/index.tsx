// What was used and what it cost: by day, model, deployment, key or kind; the prices; the budget.

import { useQuery } from "@tanstack/react-query";
import { get, path } from "../../api/http";
import type { List } from "../../api/types";
import { useText } from "../../i18n";
import { Empty, ErrorNote, Icon, Page, Snippet, useAddress, Waiting } from "../../ui";
import { BudgetCard } from "./budget";
import { Controls } from "./controls";
import { GROUPS, type Group, MEASURES, type Measure, type UsageRow } from "./groups";
import { PriceBook } from "./price_book";
import { type Range, rangeOf } from "./range";
import { UsageChart } from "./usage_chart";
import { UsageTable } from "./usage_table";

const USAGE = "/v1/stillroom/usage";
const REFRESH_MS = 20_000;

export default function UsagePage() {
  const t = useText();
  const { address: params } = useAddress();
  const group = oneOf(GROUPS, params.get("group"), "model");
  const measure = oneOf(MEASURES, params.get("show"), "money");
  const range = rangeOf(params, Date.now() / 1000);
  return (
    <Page title={t("usage.title")} text={t("usage.text")} actions={<CsvLink group={group} range={range} />}>
      <BudgetCard />
      <Controls group={group} measure={measure} range={range} />
      <Used group={group} measure={measure} range={range} />
      <PriceBook />
    </Page>
  );
}

function Used({ group, measure, range }: { group: Group; measure: Measure; range: Range }) {
  const t = useText();
  const whole = useUsage(group === "day" ? "day" : group, range);
  const daily = useUsage(group === "day" ? "day" : `day,${group}`, range);
  const error = whole.error ?? daily.error;
  if (error && !(whole.data && daily.data)) {
    return <ErrorNote error={error} onRetry={() => Promise.all([whole.refetch(), daily.refetch()])} />;
  }
  if (!whole.data || !daily.data) return <Waiting />;
  if (whole.data.length === 0) {
    return (
      <Empty title={t("usage.nothing")}>
        <p>{t("usage.nothing_text")}</p>
        <Snippet label={t("usage.nothing")} code="stillroom usage --by day,model" />
      </Empty>
    );
  }
  return (
    <>
      <UsageChart rows={daily.data} group={group} measure={measure} range={range} />
      <UsageTable rows={whole.data} group={group} />
    </>
  );
}

function useUsage(by: string, range: Range) {
  return useQuery({
    queryKey: ["usage", by, range.since, range.until],
    queryFn: async ({ signal }) => (await get<List<UsageRow>>(address(by, range), signal)).data,
    // Rows of another grouping cannot stand in for these.
    placeholderData: (before, query) => (query?.queryKey[1] === by ? before : undefined),
    refetchInterval: isOver(range) ? false : REFRESH_MS,
  });
}

function CsvLink({ group, range }: { group: Group; range: Range }) {
  const t = useText();
  const by = group === "day" ? "day" : `day,${group}`;
  return (
    <a className="button" href={address(by, range, "csv")} download>
      <Icon name="download" />
      {t("usage.csv")}
    </a>
  );
}

const address = (by: string, range: Range, format?: "csv"): string =>
  path(USAGE, { group_by: by, since: range.since || undefined, until: range.until, format });

/** Whether nothing can be added to it any more. */
const isOver = (range: Range): boolean => range.until !== null && range.until < Date.now() / 1000;

function oneOf<Name extends string>(names: readonly Name[], asked: string | null, usual: Name): Name {
  return names.includes(asked as Name) ? (asked as Name) : usual;
}
