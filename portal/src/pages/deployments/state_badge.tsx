import type { Deployment } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, type Tone } from "../../ui";

const TONES: Record<Deployment["state"], Tone> = {
  Creating: "warn",
  Succeeded: "good",
  Failed: "bad",
  Deleting: "warn",
};

export function StateBadge({ state }: { state: Deployment["state"] }) {
  const t = useText();
  const moves = state === "Creating" || state === "Deleting";
  return (
    <Badge tone={TONES[state]}>
      {moves && <span className="spinner" />}
      {t(`deployments.state_${state}`)}
    </Badge>
  );
}

/** Whether a student takes up memory now; a teacher runs elsewhere. */
export function LoadedBadge({ deployment }: { deployment: Deployment }) {
  const t = useText();
  if (deployment.base === null || deployment.state !== "Succeeded") return null;
  return (
    <span title={deployment.loaded ? undefined : t("deployments.idle_why")}>
      <Badge>{deployment.loaded ? t("deployments.loaded") : t("deployments.idle")}</Badge>
    </span>
  );
}
