// How many rows are held back: the student is tried on them while it learns, and never sees them.

import { useText } from "../../i18n";
import { Field, Note, Select, TextInput, useFormat } from "../../ui";
import { useTrainingFiles } from "./asking";
import { LARGEST_SEED, LARGEST_SHARE, MINIMUM, shareOf } from "./choices";
import styles from "./distill.module.css";
import { useFileChoices } from "./file_rows";
import type { StepProps } from "./step";

export function SplitStep(given: StepProps) {
  const t = useText();
  const { source } = given.choices;
  return (
    <div className="stack">
      <p className={styles.text}>{t("distill.split_text")}</p>
      {source.kind === "file" ? (
        <ValidationFile validation={source.validation} training={source.file} set={given.set} />
      ) : (
        <Share {...given} />
      )}
    </div>
  );
}

function Share({ choices, rows, training, validation, set }: StepProps) {
  const t = useText();
  const { number } = useFormat();
  const share = shareOf(choices, rows.usable ?? 0);
  const choose = (text: string) => {
    const value = Math.min(LARGEST_SHARE, Math.max(0, Number(text)));
    if (text.trim() !== "" && Number.isFinite(value)) set({ held_back: String(value) });
  };
  const range = { min: 0, max: LARGEST_SHARE, step: 1 };
  return (
    <>
      <div className={styles.share}>
        <Field label={t("distill.share")}>
          {(tied) => (
            <input type="range" {...tied} {...range} value={share} onChange={(event) => choose(event.target.value)} />
          )}
        </Field>
        <TextInput
          label={t("distill.percent")}
          type="number"
          {...range}
          value={share}
          onChange={(event) => choose(event.target.value)}
        />
        <TextInput
          label={t("distill.split_seed")}
          hint={t("distill.split_seed_hint")}
          type="number"
          min={0}
          max={LARGEST_SEED}
          value={choices.splitSeed}
          onChange={(event) => set({ split_seed: event.target.value || null })}
        />
      </div>
      <div className={styles.parts} aria-hidden="true">
        <div className={styles.partTraining} style={{ flexGrow: training }} />
        {validation > 0 && <div className={styles.partValidation} style={{ flexGrow: validation }} />}
      </div>
      <p role="status">
        {t(rows.atLeast ? "distill.parts_at_least" : "distill.parts", {
          training: number(training),
          validation: number(validation),
        })}
      </p>
      {training < MINIMUM && (
        <Note tone="bad">{t("distill.not_enough_why", { count: training, minimum: MINIMUM })}</Note>
      )}
      {validation === 0 && <Note>{t("distill.no_validation")}</Note>}
    </>
  );
}

function ValidationFile({
  validation,
  training,
  set,
}: { validation: string | null; training: string } & Pick<StepProps, "set">) {
  const t = useText();
  const files = useTrainingFiles();
  const others = (files.data?.data ?? []).filter((file) => file.id !== training);
  const choices = useFileChoices(others, validation ?? "");
  return (
    <Select
      label={t("distill.validation_file")}
      hint={t("distill.validation_file_hint")}
      choices={[{ value: "", label: t("distill.validation_none") }, ...choices]}
      value={validation ?? ""}
      onChange={(event) => set({ validation: event.target.value || null })}
    />
  );
}
