// How it learns: "auto" for each number, what that comes to and why, and other numbers for those who know better.

import type { ResolvedHyperparameters } from "../../api/types";
import { useText, useWords } from "../../i18n";
import { Check, ErrorNote, TextInput, useFormat } from "../../ui";
import { useAuto } from "./asking";
import {
  type Choices,
  type HyperparameterName,
  hyperparametersOf,
  isHyperparameter,
  isSeed,
  LARGEST_SEED,
  LIMITS,
} from "./choices";
import styles from "./distill.module.css";
import { MethodChoice } from "./method_choice";
import type { StepProps } from "./step";

const UNTOUCHED = { n_epochs: "", batch_size: "", learning_rate_multiplier: "", beta: "" };

export function HyperparametersStep(given: StepProps) {
  const t = useText();
  const { choices, student, training, set } = given;
  const { method } = choices;
  const auto = useAuto(student, training, method, choices.hyperparameters);
  // What was chosen is in that answer as chosen; what "auto" would have been is in this one.
  const untouched = useAuto(student, training, method, UNTOUCHED);
  return (
    <div className="stack">
      <MethodChoice {...given} />
      <p className={styles.text}>{t("distill.hyperparameters_text")}</p>
      {auto.error && !auto.data && <ErrorNote error={auto.error} onRetry={auto.refetch} />}
      {hyperparametersOf(method).map((name) => (
        <Hyperparameter
          key={name}
          name={name}
          choices={choices}
          auto={choices.hyperparameters[name] === "" ? auto.data : untouched.data}
          set={set}
        />
      ))}
      <div className={styles.narrow}>
        <TextInput
          label={t("distill.job_seed")}
          hint={t("distill.job_seed_hint")}
          error={isSeed(choices.jobSeed) ? null : t("distill.seed_wrong")}
          type="number"
          min={0}
          max={LARGEST_SEED}
          value={choices.jobSeed}
          onChange={(event) => set({ job_seed: event.target.value || null })}
        />
      </div>
    </div>
  );
}

interface HyperparameterProps extends Pick<StepProps, "set"> {
  name: HyperparameterName;
  choices: Choices;
  auto: ResolvedHyperparameters | undefined;
}

function Hyperparameter({ name, choices, auto, set }: HyperparameterProps) {
  const t = useText();
  const { number } = useFormat();
  const why = useWhy();
  const typed = choices.hyperparameters[name];
  const value = auto?.values[name];
  const { least, most, whole } = LIMITS[name];
  const isAuto = typed === "";
  const shown = value === undefined ? "…" : typeof value === "number" ? number(value) : value;
  return (
    <fieldset className={styles.hyperparameter}>
      <legend className="field-label">{t(`distill.label_${name}`)}</legend>
      <p className="small quiet">{t(`distill.about_${name}`)}</p>
      <div className={styles.autoOrOwn}>
        <Check
          label={t("distill.auto", { value: shown })}
          checked={isAuto}
          onChange={(event) => set({ [name]: event.target.checked ? null : String(value ?? (whole ? least : 1)) })}
        />
        {!isAuto && (
          <TextInput
            bare
            label={t(`distill.label_${name}`)}
            error={isHyperparameter(name, typed) ? null : t(`distill.wrong_${name}`, { most })}
            type="number"
            min={least}
            max={most}
            step={whole ? 1 : "any"}
            value={typed.trim()}
            onChange={(event) => set({ [name]: event.target.value || NOTHING })}
          />
        )}
      </div>
      {isAuto && auto && <p className="small">{why(name, auto)}</p>}
    </fieldset>
  );
}

/** Why "auto" is what it is: in the server's own words for those who read English, else by the same counts. */
function useWhy(): (name: HyperparameterName, auto: ResolvedHyperparameters) => string {
  const { language, t } = useWords();
  return (name, auto) => {
    const told = language === "en" ? auto.why[name] : undefined;
    const { examples, total_steps: steps, values } = auto;
    return (
      told ?? t(`distill.why_${name}`, { examples, steps, batch: values.batch_size ?? 0, epochs: values.n_epochs ?? 0 })
    );
  };
}

/** An emptied field is no "auto": that is chosen by its own box. */
const NOTHING = " ";
