import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { ALL_MODELS } from "../../api/shared";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { ErrorNote, Page, Waiting } from "../../ui";
import DeployDialog from "../deployments/deploy_dialog";
import { DeleteModel } from "./delete_model";
import { KindSection } from "./kind_section";

const ORDER: Model["kind"][] = ["fine_tuned", "checkpoint", "student_base", "teacher"];
const LOOK_MS = 15_000;

/** Everything that can be asked, trained or deployed, by what it is. */
export default function ModelsPage() {
  const t = useText();
  const [deploying, setDeploying] = useState<string | null>(null);
  const [leaving, setLeaving] = useState<Model | null>(null);
  const models = useQuery({
    ...ALL_MODELS,
    refetchInterval: LOOK_MS,
  });
  const standIns = standInsOf(models.data?.data ?? []);
  return (
    <Page title={t("models.title")} text={t("models.text")}>
      {models.error && <ErrorNote error={models.error} onRetry={() => models.refetch()} />}
      {models.isPending && !models.error && <Waiting />}
      {models.data &&
        ORDER.map((kind) => (
          <KindSection
            key={kind}
            kind={kind}
            models={newestFirst(models.data.data.filter((model) => model.kind === kind))}
            standIns={standIns}
            onDeploy={(model) => setDeploying(model.name)}
            onDelete={setLeaving}
          />
        ))}
      {deploying && <DeployDialog model={deploying} onClose={() => setDeploying(null)} />}
      {leaving && <DeleteModel model={leaving} onClose={() => setLeaving(null)} />}
    </Page>
  );
}

/** By the name of each deployment, which answers instead of a model that is called the same: the model behind it. */
function standInsOf(models: Model[]): Map<string, string> {
  return new Map(models.flatMap((model) => model.deployments.map((name) => [name, model.name] as const)));
}

function newestFirst(models: Model[]): Model[] {
  return models.sort((one, other) => (other.created_at ?? 0) - (one.created_at ?? 0));
}
