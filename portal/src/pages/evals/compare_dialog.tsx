// A new comparison: some models are asked what the teacher was asked, and their answers put beside its own.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useState } from "react";
import { Link, useLocation } from "wouter";
import { ApiError, post } from "../../api/http";
import { ALL_MODELS } from "../../api/shared";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import {
  Button,
  ButtonLink,
  Check,
  Dialog,
  ErrorNote,
  Select,
  TextInput,
  useAddress,
  useToast,
  Waiting,
} from "../../ui";
import {
  COMPARISONS,
  type Comparison,
  candidates,
  hasBase,
  jobsOf,
  orderOf,
  type Started,
  USUAL_ITEMS,
} from "./comparison";
import { ModelChoice } from "./model_choice";
import { QuestionChoice } from "./question_choice";

export function CompareDialog({ onClose }: { onClose: () => void }) {
  const t = useText();
  const models = useQuery(ALL_MODELS);
  const found = candidates(models.data?.data ?? []);
  if (found.length > 0) return <Order models={found} onClose={onClose} />;
  return (
    <Dialog title={t("evals.compare_title")} onClose={onClose}>
      {models.error && <ErrorNote error={models.error} onRetry={() => models.refetch()} />}
      {models.isPending && <Waiting />}
      {models.data && (
        <>
          <p>{t("evals.compare_nobody")}</p>
          <div>
            <ButtonLink to="/distill" icon="distill">
              {t("evals.compare_distill")}
            </ButtonLink>
          </div>
        </>
      )}
    </Dialog>
  );
}

function Order({ models, onClose }: { models: Model[]; onClose: () => void }) {
  const t = useText();
  const form = useId();
  const [comparison, setComparison] = useState<Comparison>(useFirstOrder(models));
  const set = (changes: Partial<Comparison>) => setComparison((before) => ({ ...before, ...changes }));
  const starting = useStart(onClose);
  const chosen = models.filter((model) => comparison.chosen.includes(model.name));
  const isComplete = chosen.length > 0 && Number(comparison.limit) >= 1;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isComplete && !starting.isPending) starting.mutate(orderOf(comparison, chosen));
  };
  return (
    <Dialog
      title={t("evals.compare_title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" type="submit" form={form} busy={starting.isPending} disabled={!isComplete}>
            {t("evals.compare_start")}
          </Button>
        </>
      }
    >
      <form id={form} className="stack" onSubmit={submit}>
        <p className="quiet">{t("evals.compare_text")}</p>
        <ModelChoice models={models} chosen={comparison.chosen} onChoose={(names) => set({ chosen: names })} />
        <QuestionChoice comparison={comparison} hasJob={jobsOf(chosen).length > 0} onChange={set} />
        <Check
          label={t("evals.compare_held_out")}
          checked={comparison.heldOut}
          onChange={(event) => set({ heldOut: event.target.checked })}
        />
        {hasBase(chosen) && (
          <Check
            label={t("evals.compare_base")}
            checked={comparison.base}
            onChange={(event) => set({ base: event.target.checked })}
          />
        )}
        <TextInput
          label={t("evals.compare_limit")}
          hint={t("evals.compare_limit_hint")}
          type="number"
          min={1}
          value={comparison.limit}
          onChange={(event) => set({ limit: event.target.value })}
        />
        <Select
          label={t("evals.compare_judge")}
          hint={t("evals.compare_judge_hint")}
          value={comparison.judge}
          choices={[
            { value: "", label: t("evals.compare_no_judge") },
            ...models.map(({ name }) => ({ value: name, label: name })),
          ]}
          onChange={(event) => set({ judge: event.target.value })}
        />
        <TextInput
          label={t("evals.compare_name")}
          hint={t("evals.compare_name_hint")}
          value={comparison.name}
          onChange={(event) => set({ name: event.target.value })}
        />
        {starting.error && <ErrorNote error={starting.error} />}
        {starting.error instanceof ApiError && starting.error.overBudget && (
          <p>
            <Link href="/usage">{t("usage.title")}</Link>
          </p>
        )}
      </form>
    </Dialog>
  );
}

/** What the address asks for (`?compare=new&model=NAME`, several), else the newest fine-tuned model. */
function useFirstOrder(models: Model[]): Comparison {
  const { address } = useAddress();
  const asked = address.getAll("model").filter((name) => models.some((model) => model.name === name));
  const newest = models.find((model) => model.kind === "fine_tuned");
  return {
    chosen: asked.length > 0 ? asked : newest ? [newest.name] : [],
    questions: "training",
    model: "",
    pairs: [],
    heldOut: true,
    base: true,
    judge: "",
    limit: String(USUAL_ITEMS),
    name: "",
  };
}

function useStart(onClose: () => void) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const [, go] = useLocation();
  return useMutation({
    mutationFn: (order: Record<string, unknown>) => post<Started>(COMPARISONS, order),
    onSuccess: (started) => {
      toast({ message: [t("evals.compare_started", { count: started.runs.length }), ...started.notes].join(" ") });
      onClose();
      go(`/evals/${started.eval_id}`);
      client.invalidateQueries({ queryKey: ["evals"] });
    },
  });
}
