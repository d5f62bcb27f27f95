// The project's budget: how much of it is spent, setting it, ending it.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ApiError, get, remove } from "../../api/http";
import type { Budget } from "../../api/types";
import { useText } from "../../i18n";
import { BudgetBar, Button, Confirm, ErrorNote, useFormat, useToast } from "../../ui";
import { BUDGET, BudgetDialog } from "./budget_dialog";
import styles from "./usage.module.css";

export function BudgetCard() {
  const t = useText();
  const [open, setOpen] = useState<"set" | "end" | null>(null);
  const budget = useQuery({ queryKey: ["budget"], queryFn: ({ signal }) => budgetOf(signal), refetchInterval: 20_000 });
  if (budget.error && budget.data === undefined) {
    return <ErrorNote error={budget.error} onRetry={() => budget.refetch()} />;
  }
  if (budget.data === undefined) return null;
  const close = () => setOpen(null);
  return (
    <section className={`card ${styles.budget}`} aria-label={t("usage.budget")}>
      <div className="spread">
        <h2>{t("usage.budget")}</h2>
        <div className="row">
          <Button onClick={() => setOpen("set")}>{t(budget.data ? "usage.budget_change" : "usage.budget_set")}</Button>
          {budget.data && <Button onClick={() => setOpen("end")}>{t("usage.budget_end")}</Button>}
        </div>
      </div>
      {budget.data ? <BudgetBar budget={budget.data} /> : <p className="quiet">{t("usage.budget_none")}</p>}
      {open === "set" && <BudgetDialog before={budget.data} onClose={close} />}
      {open === "end" && budget.data && <EndBudget budget={budget.data} onClose={close} />}
    </section>
  );
}

function EndBudget({ budget, onClose }: { budget: Budget; onClose: () => void }) {
  const t = useText();
  const format = useFormat();
  const toast = useToast();
  const client = useQueryClient();
  const ending = useMutation({
    mutationFn: () => remove(BUDGET),
    onSuccess: async () => {
      toast({ message: t("usage.budget_ended") });
      onClose();
      await Promise.all([
        client.invalidateQueries({ queryKey: ["budget"] }),
        client.invalidateQueries({ queryKey: ["overview"] }),
      ]);
    },
  });
  return (
    <Confirm
      title={t("usage.budget_end_title")}
      deed={t("usage.budget_end_deed")}
      busy={ending.isPending}
      error={ending.error}
      onConfirm={() => ending.mutate()}
      onClose={onClose}
      text={<p>{t("usage.budget_end_text", { limit: format.money(budget.limit_microusd) })}</p>}
    />
  );
}

/** Null when there is none. */
async function budgetOf(signal: AbortSignal): Promise<Budget | null> {
  try {
    return await get<Budget>(BUDGET, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}
