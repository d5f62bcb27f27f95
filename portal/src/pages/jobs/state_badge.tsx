import type { FineTuningJob } from "../../api/types";
import { useText } from "../../i18n";
import { Badge } from "../../ui";
import { isUnderWay, TONES } from "./state";

export function StateBadge({ job }: { job: FineTuningJob }) {
  const t = useText();
  return (
    <Badge tone={TONES[job.status]}>
      {isUnderWay(job) && <span className="spinner" />}
      {t(`jobs.state_${job.status}`)}
    </Badge>
  );
}
