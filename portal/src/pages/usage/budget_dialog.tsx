import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useState } from "react";
import { put } from "../../api/http";
import type { Budget } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Dialog, ErrorNote, Select, TextInput, useFormat, useToast } from "../../ui";

export const BUDGET = "/v1/stillroom/budget";
const PERIODS = ["month", "total"] as const;
type Period = (typeof PERIODS)[number];

export function BudgetDialog({ before, onClose }: { before: Budget | null; onClose: () => void }) {
  const t = useText();
  const format = useFormat();
  const toast = useToast();
  const client = useQueryClient();
  const form = useId();
  const [usd, setUsd] = useState(before ? String(before.usd) : "");
  const [period, setPeriod] = useState<Period>(before?.period ?? "month");
  const setting = useMutation({
    mutationFn: () => put<Budget>(BUDGET, { usd: Number(usd), period }),
    onSuccess: async (after) => {
      toast({ message: t("usage.budget_was_set", { limit: format.money(after.limit_microusd) }) });
      onClose();
      client.setQueryData(["budget"], after);
      await client.invalidateQueries({ queryKey: ["overview"] });
    },
  });
  const isAmount = usd !== "" && Number(usd) >= 0;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isAmount && !setting.isPending) setting.mutate();
  };
  return (
    <Dialog
      title={t(before ? "usage.budget_change" : "usage.budget_set")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" type="submit" form={form} busy={setting.isPending} disabled={!isAmount}>
            {t("common.save")}
          </Button>
        </>
      }
    >
      <form id={form} className="stack" onSubmit={submit}>
        <p className="quiet">{t("usage.budget_text")}</p>
        <TextInput
          label={t("usage.budget_usd")}
          type="number"
          min={0}
          step="any"
          inputMode="decimal"
          value={usd}
          onChange={(event) => setUsd(event.target.value)}
          autoFocus
        />
        <Select
          label={t("usage.budget_period")}
          value={period}
          choices={PERIODS.map((value) => ({ value, label: t(`usage.budget_${value}`) }))}
          onChange={(event) => setPeriod(event.target.value as Period)}
        />
        {setting.error && <ErrorNote error={setting.error} />}
      </form>
    </Dialog>
  );
}
