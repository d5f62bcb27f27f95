// One eval: teacher beside student, its runs, and what answers are graded by.

import { useState } from "react";
import type { EvalDefinition, EvalRun } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Icon, Page, Waiting } from "../../ui";
import { isGoing, reportPath, useEval, useReport, useRuns } from "./asking";
import { Definition } from "./definition";
import { DeleteEval } from "./deletions";
import { ReportView } from "./report_view";
import { RunsTable } from "./runs_table";

export function EvalPage({ id }: { id: string }) {
  const t = useText();
  const definition = useEval(id);
  const [deleting, setDeleting] = useState(false);
  const runs = useRuns(id);
  const error = definition.error ?? runs.error;
  return (
    <Page
      title={definition.data?.name || t("evals.eval")}
      back={{ to: "/evals", name: t("evals.all") }}
      actions={
        <>
          {runs.data && runs.data.data.length > 0 && <Downloads id={id} />}
          {definition.data && (
            <Button kind="danger" icon="trash" onClick={() => setDeleting(true)}>
              {t("common.delete")}
            </Button>
          )}
        </>
      }
    >
      {error && !(definition.data && runs.data) && (
        <ErrorNote error={error} onRetry={() => Promise.all([definition.refetch(), runs.refetch()])} />
      )}
      {!error && !(definition.data && runs.data) && <Waiting />}
      {definition.data && runs.data && <Shown definition={definition.data} runs={runs.data.data} />}
      {deleting && definition.data && <DeleteEval definition={definition.data} onClose={() => setDeleting(false)} />}
    </Page>
  );
}

function Shown({ definition, runs }: { definition: EvalDefinition; runs: EvalRun[] }) {
  const going = runs.some(isGoing);
  const table = <RunsTable evalId={definition.id} runs={runs} />;
  return (
    <>
      {going && table}
      {runs.length > 0 && <Reported id={definition.id} runs={runs} />}
      {!going && table}
      <Definition definition={definition} />
    </>
  );
}

function Reported({ id, runs }: { id: string; runs: EvalRun[] }) {
  const t = useText();
  const going = runs.some(isGoing);
  const report = useReport(id, runs.filter((run) => !isGoing(run)).length, going);
  if (report.error && !report.data) return <ErrorNote error={report.error} onRetry={() => report.refetch()} />;
  if (!report.data) return <Waiting />;
  const shown = report.data.sides.length;
  return (
    <>
      {shown < runs.length && <p className="small quiet">{t("evals.newest_runs", { shown, count: runs.length })}</p>}
      <ReportView report={report.data} />
    </>
  );
}

function Downloads({ id }: { id: string }) {
  const t = useText();
  return (
    <>
      <a className="button" href={reportPath(id, "html")} target="_blank" rel="noreferrer">
        <Icon name="external" />
        {t("evals.report_html")}
      </a>
      <a className="button" href={reportPath(id, "markdown")} download={`${id}.md`}>
        <Icon name="download" />
        {t("evals.report_markdown")}
      </a>
      <a className="button" href={reportPath(id, "json")} download={`${id}.json`}>
        <Icon name="download" />
        {t("evals.report_json")}
      </a>
    </>
  );
}
