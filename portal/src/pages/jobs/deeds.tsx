// What can be done with a job now. Each deed says what it did; the dangerous one asks.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { post } from "../../api/http";
import type { FineTuningJob, Job } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ButtonLink, Confirm, ErrorNote, useToast } from "../../ui";
import { lookAgain, useAuto } from "./asking";
import styles from "./jobs.module.css";
import { againAddress, deedsOf, nameOf } from "./state";

type Deed = "pause" | "resume" | "cancel";

export function Deeds({ one, onDeploy }: { one: Job; onDeploy: (model: string) => void }) {
  const t = useText();
  const { job } = one;
  const [cancelling, setCancelling] = useState(false);
  const doing = useDeed(job, () => setCancelling(false));
  const can = deedsOf(job);
  const auto = useAuto(one);
  const model = job.fine_tuned_model;
  // A pause begins after the step that is under way.
  const pausing = doing.isSuccess && doing.variables === "pause" && can.pause;
  const busy = (deed: Deed) => doing.isPending && doing.variables === deed;
  return (
    <div className={styles.deeds}>
      {can.use && model && (
        <>
          <Button kind="primary" icon="deployments" onClick={() => onDeploy(model)}>
            {t("jobs.deploy")}
          </Button>
          <ButtonLink icon="evals" to={`/evals?compare=new&model=${encodeURIComponent(model)}`}>
            {t("jobs.compare")}
          </ButtonLink>
        </>
      )}
      {can.pause && (
        <Button icon="pause" busy={busy("pause") || pausing} onClick={() => doing.mutate("pause")}>
          {pausing ? t("jobs.pausing") : t("jobs.pause")}
        </Button>
      )}
      {can.resume && (
        <Button kind="primary" icon="playground" busy={busy("resume")} onClick={() => doing.mutate("resume")}>
          {t("jobs.resume")}
        </Button>
      )}
      {can.cancel && (
        <Button kind="danger" icon="stop" onClick={() => setCancelling(true)}>
          {t("jobs.cancel")}
        </Button>
      )}
      <ButtonLink icon="refresh" to={againAddress(job, auto.data?.values)}>
        {t("jobs.again")}
      </ButtonLink>
      {doing.error && <ErrorNote error={doing.error} />}
      {cancelling && can.cancel && (
        <Confirm
          title={t("jobs.cancel_title", { name: nameOf(job) })}
          text={t("jobs.cancel_text")}
          deed={t("jobs.cancel")}
          keep={t("jobs.keep_training")}
          busy={busy("cancel")}
          onConfirm={() => doing.mutate("cancel")}
          onClose={() => setCancelling(false)}
        />
      )}
    </div>
  );
}

function useDeed(job: FineTuningJob, onDone: () => void) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  return useMutation({
    mutationFn: (deed: Deed) => post<FineTuningJob>(`/v1/fine_tuning/jobs/${encodeURIComponent(job.id)}/${deed}`),
    onSettled: () => {
      onDone();
      lookAgain(client, job.id);
    },
    onSuccess: (_job, deed) => toast({ message: t(`jobs.done_${deed}`, { name: nameOf(job) }) }),
  });
}
