import type { FineTuningJob } from "../../api/types";
import { useText } from "../../i18n";
import { Note } from "../../ui";

/** Why the job failed, in the server's words, and the way on. */
export function Failure({ job }: { job: FineTuningJob }) {
  const t = useText();
  if (job.status !== "failed") return null;
  return (
    <Note tone="bad">
      <strong>{t("jobs.failed")}</strong>
      <p className="said">{job.error?.message ?? t("jobs.failed_unknown")}</p>
      {job.error?.param && <p className="small">{t("jobs.failed_param", { name: job.error.param })}</p>}
      <p className="small">{t(adviceOf(job.error))}</p>
    </Note>
  );
}

function adviceOf(error: FineTuningJob["error"]) {
  if (error?.param?.endsWith("_file")) return "jobs.advice_file" as const;
  return error?.param?.startsWith("hyperparameters") ? ("jobs.advice_numbers" as const) : ("jobs.advice" as const);
}
