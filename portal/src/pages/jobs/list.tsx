// All jobs, newest first, the moving ones live.

import { Link } from "wouter";
import type { Job } from "../../api/types";
import { useText } from "../../i18n";
import {
  Button,
  ButtonLink,
  type Column,
  Empty,
  ErrorNote,
  Page,
  Progress,
  Snippet,
  Table,
  useFormat,
  Waiting,
  When,
} from "../../ui";
import { useJobs } from "./asking";
import styles from "./jobs.module.css";
import { hasEnded, nameOf, SOON_SECONDS, secondsLeft, secondsTaken } from "./state";
import { StateBadge } from "./state_badge";

export function JobList() {
  const t = useText();
  const jobs = useJobs();
  const shown = jobs.data?.pages.flatMap((page) => page.data) ?? [];
  const columns = useColumns();
  return (
    <Page
      title={t("jobs.title")}
      text={t("jobs.text")}
      actions={
        <ButtonLink kind="primary" icon="distill" to="/distill">
          {t("jobs.new")}
        </ButtonLink>
      }
    >
      {jobs.isPending && <Waiting />}
      {jobs.error && !jobs.data && <ErrorNote error={jobs.error} onRetry={jobs.refetch} />}
      {jobs.data && shown.length === 0 && <NoJobs />}
      {shown.length > 0 && (
        <Table label={t("jobs.title")} columns={columns} rows={shown} rowKey={({ job }) => job.id} />
      )}
      {jobs.hasNextPage && (
        <div>
          <Button busy={jobs.isFetchingNextPage} onClick={() => jobs.fetchNextPage()}>
            {t("common.older")}
          </Button>
        </div>
      )}
    </Page>
  );
}

function useColumns(): Column<Job>[] {
  const t = useText();
  const { number, money, duration } = useFormat();
  const now = Date.now() / 1000;
  return [
    { key: "name", header: t("jobs.job"), wide: true, cell: ({ job }) => <Name job={job} /> },
    { key: "state", header: t("jobs.state"), cell: ({ job }) => <StateBadge job={job} /> },
    { key: "progress", header: t("jobs.progress"), cell: (one) => <Moving one={one} /> },
    { key: "student", header: t("jobs.student"), cell: ({ job }) => <span className="said">{job.model}</span> },
    {
      key: "rows",
      header: t("jobs.rows"),
      align: "end",
      cell: ({ examples }) => (examples == null ? "–" : number(examples)),
    },
    {
      key: "started",
      header: t("jobs.started"),
      cell: ({ job }) => <When seconds={job.created_at} />,
    },
    {
      key: "took",
      header: t("jobs.took"),
      align: "end",
      cell: ({ job }) => duration(1000 * secondsTaken(job, now)),
    },
    { key: "price", header: t("jobs.price"), align: "end", cell: (one) => money(one.cost_microusd) },
  ];
}

function Name({ job }: Pick<Job, "job">) {
  return (
    <span className={styles.name}>
      <Link href={`/jobs/${encodeURIComponent(job.id)}`}>{nameOf(job)}</Link>
      <span className="small quiet mono said">{job.fine_tuned_model ?? job.id}</span>
    </span>
  );
}

function Moving({ one }: { one: Job }) {
  const t = useText();
  const { duration } = useFormat();
  const { job, progress } = one;
  if (hasEnded(job)) return progress.step ? t("jobs.steps_done", { count: progress.step }) : "–";
  const left = secondsLeft(one, Date.now() / 1000);
  return (
    <span className={styles.moving}>
      <Progress done={progress.step ?? 0} total={progress.steps} label={t("jobs.progress_of", { name: nameOf(job) })} />
      {left !== null && (
        <span className="small quiet">
          {t("jobs.left", { time: left < SOON_SECONDS ? t("jobs.soon") : duration(left * 1000) })}
        </span>
      )}
    </span>
  );
}

function NoJobs() {
  const t = useText();
  return (
    <Empty title={t("jobs.none")}>
      <p>{t("jobs.none_text")}</p>
      <div className="row">
        <ButtonLink kind="primary" icon="distill" to="/distill">
          {t("jobs.new")}
        </ButtonLink>
        <ButtonLink icon="completions" to="/completions">
          {t("completions.title")}
        </ButtonLink>
      </div>
      <p>{t("jobs.none_command")}</p>
      <Snippet
        label={t("jobs.none_command")}
        code="stillroom distill --student scratch-small --validation 0.1 --wait"
      />
    </Empty>
  );
}
