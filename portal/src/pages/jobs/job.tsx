// One job: how far it is, its curves, what it made, what it was told, and what happened.

import { useState } from "react";
import { ApiError } from "../../api/http";
import type { Job } from "../../api/types";
import { type TextKey, useText } from "../../i18n";
import { ButtonLink, Empty, ErrorNote, Page, Progress, Stat, useFormat, Waiting, When } from "../../ui";
import DeployDialog from "../deployments/deploy_dialog";
import { useFollowing, useJob } from "./asking";
import { Curves } from "./curves";
import { Deeds } from "./deeds";
import { EventList } from "./event_list";
import { Failure } from "./failure";
import { Files } from "./files";
import styles from "./jobs.module.css";
import { Made } from "./made";
import { loss } from "./metrics";
import { Numbers } from "./numbers";
import { hasEnded, isUnderWay, type JobState, nameOf, SOON_SECONDS, secondsLeft, secondsTaken } from "./state";
import { StateBadge } from "./state_badge";

/** What it means that a job stands where it stands. */
const NOW: Partial<Record<JobState, TextKey>> = {
  validating_files: "jobs.now_validating_files",
  queued: "jobs.now_queued",
  running: "jobs.now_running",
  paused: "jobs.now_paused",
};

export function OneJob({ id }: { id: string }) {
  const t = useText();
  const found = useJob(id);
  if (found.data) return <Shown one={found.data} />;
  return (
    <Page title={t("jobs.one", { name: id })} back={{ to: "/jobs", name: t("jobs.all") }}>
      {found.isPending && <Waiting />}
      {found.error &&
        (isMissing(found.error) ? <Missing /> : <ErrorNote error={found.error} onRetry={found.refetch} />)}
    </Page>
  );
}

function Shown({ one }: { one: Job }) {
  const t = useText();
  const { job } = one;
  const [deploying, setDeploying] = useState<string | null>(null);
  useFollowing(one);
  return (
    <Page
      title={t("jobs.one", { name: nameOf(job) })}
      back={{ to: "/jobs", name: t("jobs.all") }}
      text={<Heading one={one} />}
      actions={<Deeds one={one} onDeploy={setDeploying} />}
    >
      <Failure job={job} />
      <Standing one={one} />
      <Curves one={one} />
      <div className={styles.two}>
        <Made one={one} onDeploy={setDeploying} />
        <div className="stack">
          <Numbers one={one} />
          <Files job={job} />
        </div>
      </div>
      <EventList one={one} />
      {deploying && <DeployDialog model={deploying} onClose={() => setDeploying(null)} />}
    </Page>
  );
}

function Heading({ one: { job } }: { one: Job }) {
  const t = useText();
  return (
    <span className="row">
      <StateBadge job={job} />
      <span>{t("jobs.of_student", { student: job.model })}</span>
      <When seconds={job.created_at} />
    </span>
  );
}

/** How far it is, in figures. */
function Standing({ one }: { one: Job }) {
  const t = useText();
  const { number, money, duration, time } = useFormat();
  const { job, progress } = one;
  const now = Date.now() / 1000;
  const left = secondsLeft(one, now);
  const of = progress.steps === null ? "" : t("jobs.of_steps", { count: progress.steps });
  return (
    <section className="card stack" aria-label={t("jobs.standing")}>
      {!hasEnded(job) && (
        <>
          <Progress
            done={progress.step ?? 0}
            total={progress.steps}
            label={t("jobs.progress_of", { name: nameOf(job) })}
          />
          <p className="quiet small" role="status">
            {t(NOW[job.status] ?? "jobs.now_running")}
          </p>
        </>
      )}
      <div className={styles.figures}>
        <Stat
          label={t("jobs.step")}
          value={progress.step ? number(progress.step) : "–"}
          more={[of, progress.epoch && t("jobs.epoch", { number: oneDigit(progress.epoch) })]
            .filter(Boolean)
            .join(" · ")}
        />
        <Stat label={t("jobs.train_loss")} value={loss(progress.train_loss)} />
        {progress.rewards_margin != null && (
          <Stat
            label={t("jobs.rewards_margin")}
            value={loss(progress.rewards_margin)}
            more={t("jobs.rewards_margin_more")}
          />
        )}
        {one.dropped_prompt_tokens != null && (
          <Stat
            label={t("jobs.dropped_prompt")}
            value={number(one.dropped_prompt_tokens)}
            more={t("jobs.dropped_prompt_more")}
          />
        )}
        <Stat
          label={t("jobs.valid_loss")}
          value={loss(progress.valid_loss)}
          more={!job.validation_file && t("jobs.no_validation")}
        />
        {isUnderWay(job) || job.status === "paused" ? (
          <Stat
            label={t("jobs.time_left")}
            value={left === null ? "–" : left < SOON_SECONDS ? t("jobs.soon") : duration(left * 1000)}
            more={left === null ? null : t("jobs.until", { time: time(now + left) })}
          />
        ) : (
          <Stat
            label={t("jobs.took")}
            value={duration(1000 * secondsTaken(job, now))}
            more={job.finished_at && t("jobs.ended", { time: time(job.finished_at) })}
          />
        )}
        <Stat
          label={t("jobs.price")}
          value={money(one.cost_microusd)}
          more={
            job.trained_tokens !== null
              ? t("jobs.tokens_trained", { count: job.trained_tokens })
              : t(hasEnded(job) ? "jobs.not_billed" : "jobs.billed_at_end")
          }
        />
      </div>
    </section>
  );
}

function Missing() {
  const t = useText();
  return (
    <Empty title={t("jobs.missing")}>
      <div>
        <ButtonLink to="/distill">{t("jobs.new")}</ButtonLink>
      </div>
    </Empty>
  );
}

const isMissing = (error: unknown): boolean => error instanceof ApiError && error.status === 404;

const oneDigit = (value: number): number => Math.round(10 * value) / 10;
