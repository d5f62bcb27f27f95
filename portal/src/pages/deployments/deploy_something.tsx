import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { ALL_MODELS } from "../../api/shared";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Dialog, ErrorNote, Field, Note, Waiting } from "../../ui";
import DeployDialog from "./deploy_dialog";

const KINDS: Model["kind"][] = ["fine_tuned", "checkpoint", "student_base", "teacher"];

/** Deploys the model that is named, or else one to be chosen first. */
export default function DeploySomething({ model, onClose }: { model: string | null; onClose: () => void }) {
  const [chosen, setChosen] = useState(model);
  if (chosen !== null) return <DeployDialog model={chosen} onClose={onClose} />;
  return <ChooseModel onChoose={setChosen} onClose={onClose} />;
}

function ChooseModel({ onChoose, onClose }: { onChoose: (model: string) => void; onClose: () => void }) {
  const t = useText();
  const [picked, setPicked] = useState<string | null>(null);
  const models = useQuery(ALL_MODELS);
  const offered = KINDS.map((kind) => ({ kind, models: deployable(models.data?.data ?? [], kind) }));
  const first = offered.flatMap((group) => group.models)[0]?.name;
  const value = picked ?? first;
  return (
    <Dialog
      title={t("deployments.choose_title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" disabled={!value} onClick={() => value && onChoose(value)}>
            {t("deployments.choose_deed")}
          </Button>
        </>
      }
    >
      {models.error && <ErrorNote error={models.error} onRetry={() => models.refetch()} />}
      {models.isPending && !models.error && <Waiting />}
      {models.data && !first && <Note>{t("deployments.choose_none")}</Note>}
      {value && (
        <Field label={t("deployments.model")} hint={t("deployments.choose_hint")}>
          {(tied) => (
            <select className="input" {...tied} value={value} onChange={(event) => setPicked(event.target.value)}>
              {offered
                .filter((group) => group.models.length)
                .map((group) => (
                  <optgroup key={group.kind} label={t(`models.kind_${group.kind}`)}>
                    {group.models.map((one) => (
                      <option key={one.name} value={one.name}>
                        {one.name}
                      </option>
                    ))}
                  </optgroup>
                ))}
            </select>
          )}
        </Field>
      )}
    </Dialog>
  );
}

/** Newest first. */
function deployable(models: Model[], kind: Model["kind"]): Model[] {
  return models
    .filter((model) => model.kind === kind && model.can.deploy)
    .sort((one, other) => (other.created_at ?? 0) - (one.created_at ?? 0));
}
