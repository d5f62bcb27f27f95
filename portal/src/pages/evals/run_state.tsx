import type { EvalRun } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, type Tone } from "../../ui";

const TONES: Record<EvalRun["status"], Tone> = {
  queued: "plain",
  in_progress: "warn",
  completed: "good",
  canceled: "plain",
  failed: "bad",
};

export function RunState({ status }: { status: EvalRun["status"] }) {
  const t = useText();
  return <Badge tone={TONES[status]}>{t(`evals.state_${status}`)}</Badge>;
}
