import { Link } from "wouter";
import type { EvalDefinition } from "../../api/types";
import { useText } from "../../i18n";
import { Button, type Column, ErrorNote, Page, Progress, Table, useAddress, useFormat, Waiting, When } from "../../ui";
import { isGoing, useEvals, useRuns } from "./asking";
import { CompareDialog } from "./compare_dialog";
import { NoEvals } from "./no_evals";
import { passRate } from "./run_counts";
import { RunState } from "./run_state";
import { Source } from "./source";

/** Every eval, newest first, with how many runs it has and how the newest came out. */
export function EvalList() {
  const t = useText();
  const { address, set } = useAddress();
  const evals = useEvals();
  const found = evals.data?.pages.flatMap((page) => page.data) ?? [];
  const open = () => set({ compare: "new" }, { asPlace: true });
  return (
    <Page
      title={t("evals.title")}
      text={t("evals.text")}
      actions={
        <Button kind="primary" icon="plus" onClick={open}>
          {t("evals.compare")}
        </Button>
      }
    >
      {evals.error && !evals.data && <ErrorNote error={evals.error} onRetry={() => evals.refetch()} />}
      {evals.isPending && <Waiting />}
      {evals.data && found.length === 0 && <NoEvals />}
      {found.length > 0 && <Evals rows={found} />}
      {evals.hasNextPage && (
        <div>
          <Button onClick={() => evals.fetchNextPage()} busy={evals.isFetchingNextPage}>
            {t("common.older")}
          </Button>
        </div>
      )}
      {address.has("compare") && <CompareDialog onClose={() => set({ compare: null, model: null })} />}
    </Page>
  );
}

function Evals({ rows }: { rows: EvalDefinition[] }) {
  const t = useText();
  const columns: Column<EvalDefinition>[] = [
    {
      key: "name",
      header: t("evals.name"),
      wide: true,
      cell: (row) => (
        <Link href={`/evals/${row.id}`} className="said">
          {row.name || row.id}
        </Link>
      ),
    },
    { key: "source", header: t("evals.source"), cell: (row) => <Source type={row.data_source_config.type} /> },
    { key: "criteria", header: t("evals.criteria"), align: "end", cell: (row) => row.testing_criteria.length },
    { key: "runs", header: t("evals.runs"), align: "end", cell: (row) => <RunCount id={row.id} /> },
    { key: "newest", header: t("evals.newest"), cell: (row) => <Newest id={row.id} /> },
    { key: "created", header: t("evals.created"), cell: (row) => <When seconds={row.created_at} /> },
  ];
  return <Table label={t("evals.title")} columns={columns} rows={rows} rowKey={(row) => row.id} />;
}

function RunCount({ id }: { id: string }) {
  const t = useText();
  const format = useFormat();
  const runs = useRuns(id).data;
  if (!runs) return null;
  const count = format.number(runs.data.length);
  return runs.has_more ? t("evals.at_least", { number: count }) : count;
}

function Newest({ id }: { id: string }) {
  const t = useText();
  const format = useFormat();
  const run = useRuns(id).data?.data[0];
  if (!run) return null;
  const rate = passRate(run);
  const { passed, failed, errored, total } = run.result_counts;
  return (
    <span className="row">
      <RunState status={run.status} />
      {isGoing(run) ? (
        <Progress done={passed + failed + errored} total={total || null} label={t("evals.progress")} />
      ) : (
        rate !== null && <span className="number">{t("evals.passed_share", { share: format.share(rate) })}</span>
      )}
    </span>
  );
}
