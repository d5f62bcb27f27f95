import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Check, type Tone } from "../../ui";
import styles from "./evals.module.css";

const TONES: Record<Model["kind"], Tone> = {
  teacher: "teacher",
  student_base: "student",
  fine_tuned: "student",
  checkpoint: "plain",
};

interface ModelChoiceProps {
  models: Model[];
  chosen: string[];
  onChoose: (names: string[]) => void;
}

/** The models that are asked; checkpoints, of which there are many, are folded away. */
export function ModelChoice({ models, chosen, onChoose }: ModelChoiceProps) {
  const t = useText();
  const toggle = (name: string, on: boolean) => onChoose(on ? [...chosen, name] : chosen.filter((one) => one !== name));
  const checkpoints = models.filter((model) => model.kind === "checkpoint");
  const boxes = (shown: Model[]) =>
    shown.map((model) => (
      <Check
        key={model.name}
        label={
          <span className="row">
            <span className="said">{model.name}</span>
            {model.kind !== "checkpoint" && <Badge tone={TONES[model.kind]}>{t(`evals.kind_${model.kind}`)}</Badge>}
          </span>
        }
        checked={chosen.includes(model.name)}
        onChange={(event) => toggle(model.name, event.target.checked)}
      />
    ));
  return (
    <fieldset className="field">
      <legend className="field-label">{t("evals.compare_models")}</legend>
      <div className={styles.choices}>
        {boxes(models.filter((model) => model.kind !== "checkpoint"))}
        {checkpoints.length > 0 && (
          <details open={checkpoints.some((model) => chosen.includes(model.name))}>
            <summary>{t("evals.checkpoints", { count: checkpoints.length })}</summary>
            <div className={styles.radios}>{boxes(checkpoints)}</div>
          </details>
        )}
      </div>
    </fieldset>
  );
}
