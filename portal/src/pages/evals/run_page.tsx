// One run: how it came out, and every item that it asked.

import { useState } from "react";
import { useLocation } from "wouter";
import type { EvalRun } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note, Page, Snippet, Stat, useFormat, Waiting, When } from "../../ui";
import { isGoing, useEval, useRun } from "./asking";
import { DeleteRun } from "./deletions";
import styles from "./evals.module.css";
import { Items } from "./items";
import { passRate } from "./run_counts";
import { RunState } from "./run_state";
import { RunProgress, useCancel } from "./runs_table";

export function RunPage({ evalId, runId }: { evalId: string; runId: string }) {
  const t = useText();
  const [, go] = useLocation();
  const [deleting, setDeleting] = useState(false);
  const run = useRun(evalId, runId);
  const definition = useEval(evalId);
  const cancelling = useCancel();
  const shown = run.data;
  return (
    <Page
      title={shown?.name || t("evals.run")}
      back={{ to: `/evals/${evalId}`, name: definition.data?.name || t("evals.eval") }}
      actions={
        shown &&
        (isGoing(shown) ? (
          <Button icon="stop" busy={cancelling.isPending} onClick={() => cancelling.mutate(shown)}>
            {t("evals.cancel")}
          </Button>
        ) : (
          <Button kind="danger" icon="trash" onClick={() => setDeleting(true)}>
            {t("common.delete")}
          </Button>
        ))
      }
    >
      {run.error && !shown && <ErrorNote error={run.error} onRetry={() => run.refetch()} />}
      {cancelling.error && <ErrorNote error={cancelling.error} />}
      {run.isPending && <Waiting />}
      {shown && <Outcome run={shown} />}
      {shown && <Items run={shown} />}
      {shown && (
        <details className="card">
          <summary>{t("evals.as_json")}</summary>
          <Snippet label={t("evals.as_json")} code={JSON.stringify(shown, null, 2)} />
        </details>
      )}
      {deleting && shown && (
        <DeleteRun run={shown} onDeleted={() => go(`/evals/${evalId}`)} onClose={() => setDeleting(false)} />
      )}
    </Page>
  );
}

function Outcome({ run }: { run: EvalRun }) {
  const t = useText();
  const format = useFormat();
  const { total, passed, failed, errored } = run.result_counts;
  const rate = passRate(run);
  return (
    <>
      {run.error && (
        <Note tone="bad">
          <span className="said">{run.error.message}</span>
        </Note>
      )}
      {run.lineage?.trained_on ? (
        <Note tone="bad">
          {t("evals.note_trained", { name: run.name, model: run.model, trained: run.lineage.trained_on, count: total })}
        </Note>
      ) : null}
      <section className={`card ${styles.outcome}`} aria-label={t("evals.outcome")}>
        <Stat
          label={t("evals.state")}
          value={<RunState status={run.status} />}
          more={isGoing(run) ? <RunProgress run={run} /> : <When seconds={run.created_at} />}
        />
        <Stat label={t("evals.rate")} value={rate === null ? "–" : format.share(rate)} />
        <Stat label={t("evals.passed")} value={format.number(passed)} />
        <Stat label={t("evals.failed")} value={format.number(failed)} />
        <Stat label={t("evals.errored")} value={format.number(errored)} />
        <Stat label={t("evals.model")} value={<span className={styles.model}>{run.model || "–"}</span>} />
      </section>
      {run.per_testing_criteria_results && <ByCriterion results={run.per_testing_criteria_results} />}
    </>
  );
}

function ByCriterion({ results }: { results: NonNullable<EvalRun["per_testing_criteria_results"]> }) {
  const t = useText();
  return (
    <section className="card stack">
      <h2>{t("evals.by_criterion")}</h2>
      <ul className={styles.byCriterion}>
        {results.map(({ testing_criteria, passed, failed }) => (
          <li key={testing_criteria}>
            <span className="said">{testing_criteria}</span>
            <span className="number quiet">{t("evals.passed_of", { passed, total: passed + failed })}</span>
            <progress
              value={passed}
              max={Math.max(1, passed + failed)}
              aria-label={testing_criteria}
              className={styles.meter}
            />
          </li>
        ))}
      </ul>
    </section>
  );
}
