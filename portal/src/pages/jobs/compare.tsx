import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useState } from "react";
import { useLocation } from "wouter";
import { ApiError, post } from "../../api/http";
import type { FineTuningJob } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Check, Dialog, ErrorNote, TextInput } from "../../ui";

const ITEMS = 200;
const MOST = 10_000;

interface Comparison {
  eval_id: string;
  runs: string[];
  notes: string[];
}

/** Starts an eval that puts the job's model beside its teacher, and goes to it. */
export function CompareDialog({ job, onClose }: { job: FineTuningJob; onClose: () => void }) {
  const t = useText();
  const form = useId();
  const [heldOut, setHeldOut] = useState(true);
  const [all, setAll] = useState(false);
  const [items, setItems] = useState(String(ITEMS));
  const starting = useStart();
  const limit = Number(items);
  const wrong = !Number.isInteger(limit) || limit < 1 || limit > MOST;
  // The rows of an uploaded file say not which stored completions they stand for.
  const isUploaded = starting.error instanceof ApiError && starting.error.param === "filter" && !all;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (wrong || starting.isPending) return;
    starting.mutate({ jobs: [job.id], held_out: heldOut, limit, ...(all ? { filter: {} } : {}) });
  };
  return (
    <Dialog
      title={t("jobs.compare_title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" type="submit" form={form} busy={starting.isPending}>
            {t("jobs.compare_start")}
          </Button>
        </>
      }
    >
      <form id={form} className="stack" onSubmit={submit}>
        <p>{t("jobs.compare_text")}</p>
        <TextInput
          label={t("jobs.compare_items")}
          hint={t("jobs.compare_items_hint")}
          error={wrong ? t("jobs.compare_items_wrong", { most: MOST }) : null}
          type="number"
          min={1}
          max={MOST}
          value={items}
          onChange={(event) => setItems(event.target.value)}
        />
        <Check
          label={t("jobs.compare_held_out")}
          checked={heldOut}
          onChange={(event) => setHeldOut(event.target.checked)}
        />
        {starting.error && !starting.isPending && <ErrorNote error={starting.error} />}
        {(isUploaded || all) && (
          <Check label={t("jobs.compare_all")} checked={all} onChange={(event) => setAll(event.target.checked)} />
        )}
      </form>
    </Dialog>
  );
}

function useStart() {
  const client = useQueryClient();
  const [, go] = useLocation();
  return useMutation({
    mutationFn: (body: object) => post<Comparison>("/v1/stillroom/comparisons", body),
    onSuccess: (made) => {
      client.invalidateQueries({ queryKey: ["evals"] });
      go(`/evals/${encodeURIComponent(made.eval_id)}`);
    },
  });
}
