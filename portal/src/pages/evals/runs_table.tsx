import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { post } from "../../api/http";
import type { EvalRun } from "../../api/types";
import { useText } from "../../i18n";
import { Button, type Column, ErrorNote, IconButton, Progress, Table, useFormat, useToast, When } from "../../ui";
import { isGoing, runPath } from "./asking";
import { DeleteRun } from "./deletions";
import { passRate } from "./run_counts";
import { RunState } from "./run_state";

/** An eval's runs, newest first; those that go on count up. */
export function RunsTable({ evalId, runs }: { evalId: string; runs: EvalRun[] }) {
  const t = useText();
  const format = useFormat();
  const [deleting, setDeleting] = useState<EvalRun | null>(null);
  const cancelling = useCancel();
  const count = (key: "passed" | "failed" | "errored"): Column<EvalRun> => ({
    key,
    header: t(`evals.${key}`),
    align: "end",
    cell: (run) => format.number(run.result_counts[key]),
  });
  const columns: Column<EvalRun>[] = [
    {
      key: "name",
      header: t("evals.run"),
      wide: true,
      cell: (run) => (
        <Link href={`/evals/${evalId}/runs/${run.id}`} className="said">
          {run.name || run.id}
        </Link>
      ),
    },
    {
      key: "state",
      header: t("evals.state"),
      cell: (run) => (
        <span className="row">
          <RunState status={run.status} />
          {isGoing(run) && <RunProgress run={run} />}
        </span>
      ),
    },
    count("passed"),
    count("failed"),
    count("errored"),
    {
      key: "rate",
      header: t("evals.rate"),
      align: "end",
      cell: (run) => {
        const rate = passRate(run);
        return rate !== null && format.share(rate);
      },
    },
    { key: "created", header: t("evals.started"), cell: (run) => <When seconds={run.created_at} /> },
    {
      key: "deeds",
      header: t("evals.deeds"),
      align: "end",
      cell: (run) =>
        isGoing(run) ? (
          <Button
            icon="stop"
            busy={cancelling.isPending && cancelling.variables?.id === run.id}
            onClick={() => cancelling.mutate(run)}
            aria-label={t("evals.cancel_named", { name: run.name })}
          >
            {t("evals.cancel")}
          </Button>
        ) : (
          <IconButton
            icon="trash"
            label={t("evals.delete_named", { name: run.name })}
            onClick={() => setDeleting(run)}
          />
        ),
    },
  ];
  return (
    <section className="stack">
      <h2>{t("evals.runs")}</h2>
      {cancelling.error && <ErrorNote error={cancelling.error} />}
      {runs.length === 0 ? (
        <p className="quiet">{t("evals.no_runs")}</p>
      ) : (
        <Table label={t("evals.runs")} columns={columns} rows={runs} rowKey={(run) => run.id} />
      )}
      {deleting && <DeleteRun run={deleting} onClose={() => setDeleting(null)} />}
    </section>
  );
}

export function RunProgress({ run }: { run: EvalRun }) {
  const t = useText();
  const { passed, failed, errored, total } = run.result_counts;
  return <Progress done={passed + failed + errored} total={total || null} label={t("evals.progress")} />;
}

export function useCancel() {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  return useMutation({
    mutationFn: (run: EvalRun) => post<EvalRun>(runPath(run.eval_id, run.id)),
    onSuccess: (run) => {
      toast({ message: t("evals.was_cancelled", { name: run.name }) });
      client.setQueryData(["eval-run", run.eval_id, run.id], run);
      return client.invalidateQueries({ queryKey: ["eval-runs", run.eval_id] });
    },
  });
}
