import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useLocation } from "wouter";
import { remove } from "../../api/http";
import type { EvalDefinition, EvalRun } from "../../api/types";
import { useText } from "../../i18n";
import { Confirm, useToast } from "../../ui";
import { evalPath, runPath } from "./asking";

export function DeleteEval({ definition, onClose }: { definition: EvalDefinition; onClose: () => void }) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const [, go] = useLocation();
  const deleting = useMutation({
    mutationFn: () => remove(evalPath(definition.id)),
    onSuccess: () => {
      toast({ message: t("evals.was_deleted", { name: definition.name }) });
      go("/evals");
      client.invalidateQueries({ queryKey: ["evals"] });
    },
  });
  return (
    <Confirm
      title={t("evals.delete_title", { name: definition.name })}
      deed={t("evals.delete_deed")}
      busy={deleting.isPending}
      error={deleting.error}
      onConfirm={() => deleting.mutate()}
      onClose={onClose}
      text={<p>{t("evals.delete_text")}</p>}
    />
  );
}

/** `onDeleted` is called once the run is gone. */
export function DeleteRun({ run, onDeleted, onClose }: { run: EvalRun; onDeleted?: () => void; onClose: () => void }) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const deleting = useMutation({
    mutationFn: () => remove(runPath(run.eval_id, run.id)),
    onSuccess: () => {
      toast({ message: t("evals.run_was_deleted", { name: run.name }) });
      onClose();
      onDeleted?.();
      client.invalidateQueries({ queryKey: ["eval-runs", run.eval_id] });
      client.removeQueries({ queryKey: ["eval-report", run.eval_id] });
    },
  });
  return (
    <Confirm
      title={t("evals.run_delete_title", { name: run.name })}
      deed={t("evals.run_delete_deed")}
      busy={deleting.isPending}
      error={deleting.error}
      onConfirm={() => deleting.mutate()}
      onClose={onClose}
      text={<p>{t("evals.run_delete_text")}</p>}
    />
  );
}
