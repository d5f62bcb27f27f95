// The flow at a glance: what the teacher cost, what the student would have cost, how well it agrees, what is next.

import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/http";
import type { Overview } from "../../api/types";
import { useText } from "../../i18n";
import { BudgetBar, ErrorNote, Page, Waiting } from "../../ui";
import { FirstCall } from "../completions/starters";
import { Figures } from "./figures";
import { MoneyPerDay } from "./money_per_day";
import { Steps } from "./steps";
import { WhoAnswers } from "./who_answers";

const SLOW_MS = 10_000;
/** While a job runs. */
const QUICK_MS = 2500;
/** While the first completion is awaited. */
const FIRST_MS = 1000;

export default function OverviewPage() {
  const t = useText();
  const overview = useQuery({
    queryKey: ["overview"],
    queryFn: ({ signal }) => get<Overview>("/v1/stillroom/overview", signal),
    refetchInterval: ({ state }) => intervalOf(state.data),
  });
  return (
    <Page title={t("overview.title")} text={t("overview.text")}>
      {overview.error && !overview.data && <ErrorNote error={overview.error} onRetry={() => overview.refetch()} />}
      {overview.isPending && <Waiting />}
      {overview.data && <Shown overview={overview.data} />}
    </Page>
  );
}

function Shown({ overview }: { overview: Overview }) {
  if (isNew(overview)) {
    return (
      <>
        <FirstCall />
        <Steps overview={overview} isNew />
      </>
    );
  }
  return (
    <>
      <Figures overview={overview} />
      {overview.budget && <BudgetCard overview={overview} />}
      <Steps overview={overview} />
      <MoneyPerDay overview={overview} />
      <WhoAnswers overview={overview} />
    </>
  );
}

function BudgetCard({ overview }: { overview: Overview }) {
  const t = useText();
  return (
    <section className="card stack">
      <h2>{t("overview.budget")}</h2>
      {overview.budget && <BudgetBar budget={overview.budget} />}
    </section>
  );
}

function intervalOf(overview: Overview | undefined): number {
  if (overview && isNew(overview)) return FIRST_MS;
  return overview?.jobs_running ? QUICK_MS : SLOW_MS;
}

/** Nothing was stored and nobody has called anything. */
const isNew = ({ stored, teachers, students }: Overview): boolean =>
  stored === 0 && [...teachers, ...students].every(({ calls }) => calls === 0);
