import { type ReactNode, useEffect, useRef } from "react";
import { Link } from "wouter";
import type { Deployment } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ButtonLink, Stat, useFormat, When } from "../../ui";
import { hoursOf } from "./bill";
import { CallSnippet } from "./call_snippet";
import { CallsPerDay } from "./calls_per_day";
import { HOURS_A_MONTH } from "./deploying";
import styles from "./deployments.module.css";
import { FailedNote } from "./failed_note";
import { LoadedBadge, StateBadge } from "./state_badge";

interface DeploymentCardProps {
  deployment: Deployment;
  window: { since: number; until: number };
  /** Whether the address asks for this one: it is brought into view. */
  isNamed: boolean;
  onDelete: () => void;
}

export function DeploymentCard({ deployment, window, isNamed, onDelete }: DeploymentCardProps) {
  const t = useText();
  const { name, state } = deployment;
  const card = useRef<HTMLElement>(null);
  useEffect(() => {
    if (isNamed) card.current?.scrollIntoView({ block: "nearest" });
  }, [isNamed]);
  return (
    <article
      ref={card}
      data-named={isNamed ? "" : undefined}
      className={`card ${styles.card}`}
      data-tone={deployment.base === null ? "teacher" : "student"}
      aria-label={name}
    >
      <header className="spread">
        <div className={styles.names}>
          <div className="row">
            <h2 className="said">{name}</h2>
            <StateBadge state={state} />
            <LoadedBadge deployment={deployment} />
          </div>
          <Origin deployment={deployment} />
        </div>
        <div className="row">
          {state === "Succeeded" && (
            <ButtonLink to={`/playground?model=${encodeURIComponent(name)}`} icon="playground">
              {t("deployments.try")}
            </ButtonLink>
          )}
          <Button kind="danger" icon="trash" disabled={state === "Deleting"} onClick={onDelete}>
            <span>
              {t("common.delete")}
              <span className="unseen"> {name}</span>
            </span>
          </Button>
        </div>
      </header>
      {state === "Failed" && <FailedNote deployment={deployment} />}
      <div className={styles.figures}>
        <div className={styles.traffic}>
          <Traffic deployment={deployment} />
          <CallsPerDay
            days={deployment.calls_per_day}
            window={window}
            label={t("deployments.calls_per_day", { name })}
          />
        </div>
        <Quickness deployment={deployment} />
        <Costs deployment={deployment} />
      </div>
      <CallSnippet name={name} />
    </article>
  );
}

/** What answers, where it came from, and since when. */
function Origin({ deployment }: { deployment: Deployment }) {
  const t = useText();
  const { model, base, job, dropped_prompt, created_at } = deployment;
  return (
    <p className={styles.origin}>
      <span className="mono said">{model}</span>
      {base === null ? <span>{t("deployments.is_teacher")}</span> : <span>{t("deployments.of_base", { base })}</span>}
      {dropped_prompt && <span title={dropped_prompt.text}>{t("deployments.dropped")}</span>}
      {job && <Link href={`/jobs/${encodeURIComponent(job)}`}>{t("deployments.job")}</Link>}
      <When seconds={created_at} />
    </p>
  );
}

function Traffic({ deployment }: { deployment: Deployment }) {
  const t = useText();
  const { number } = useFormat();
  const { prompt_tokens, completion_tokens, saved_prompt_tokens: saved } = deployment;
  return (
    <Stat
      label={t("deployments.traffic")}
      value={number(deployment.calls)}
      more={
        <Lines>
          <span>{t("deployments.tokens", { prompt: prompt_tokens, completion: completion_tokens })}</span>
          {saved > 0 && <span>{t("deployments.saved", { count: saved })}</span>}
        </Lines>
      }
    />
  );
}

function Quickness({ deployment }: { deployment: Deployment }) {
  const t = useText();
  const { duration } = useFormat();
  const { latency_ms: latency, first_token_ms: first } = deployment;
  if (!latency) return <Stat label={t("deployments.latency")} value="–" more={t("deployments.latency_none")} />;
  const both = t("deployments.latency_more", { p95: duration(latency.p95), first: duration(first?.p50) });
  return <Stat label={t("deployments.latency")} value={duration(latency.p50)} more={both} />;
}

function Costs({ deployment }: { deployment: Deployment }) {
  const t = useText();
  const { money, usd } = useFormat();
  const { price, usd_per_hosting_hour: hour, hosted_seconds, hosting_microusd } = deployment;
  const perMillion = t("deployments.per_million", {
    input: usd(price.input),
    output: usd(price.output),
  });
  return (
    <>
      <Stat label={t("deployments.calls_cost")} value={money(deployment.cost_microusd)} more={perMillion} />
      {deployment.base !== null && (
        <Stat
          label={t("deployments.hosting")}
          value={money(hosting_microusd)}
          more={
            <Lines>
              <span>{t("deployments.hours", { hours: hoursOf(hosted_seconds) })}</span>
              <span>
                {hour
                  ? t("deployments.hosting_more", {
                      hour: usd(hour),
                      month: usd(hour * HOURS_A_MONTH),
                    })
                  : t("deployments.hosting_free")}
              </span>
            </Lines>
          }
        />
      )}
    </>
  );
}

function Lines({ children }: { children: ReactNode }) {
  return <span className={styles.lines}>{children}</span>;
}
