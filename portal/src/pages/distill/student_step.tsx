// Who learns: a base model, or a student that has learned before.

import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, ErrorNote, Note, TextInput, useFormat, Waiting } from "../../ui";
import { useStudents } from "./asking";
import { isSuffix } from "./choices";
import styles from "./distill.module.css";
import type { StepProps } from "./step";

const SCRATCH = "scratch-small";

export function StudentStep({ choices, student, set }: StepProps) {
  const t = useText();
  const students = useStudents();
  const isGone = students.data && student !== null && !students.data.some((model) => model.name === student);
  return (
    <div className="stack">
      {students.isPending && <Waiting />}
      {students.error && !students.data && <ErrorNote error={students.error} onRetry={students.refetch} />}
      {isGone && <Note tone="warn">{t("distill.student_gone", { name: student })}</Note>}
      {choices.method !== "supervised" && student === SCRATCH && (
        <Note tone="warn">{t("distill.method_needs_learned")}</Note>
      )}
      <fieldset className={styles.students}>
        <legend className="unseen">{t("distill.student")}</legend>
        {students.data?.map((model) => (
          <Student
            key={model.name}
            model={model}
            chosen={model.name === student}
            onChoose={() => set({ student: model.name })}
          />
        ))}
      </fieldset>
      <div className={styles.narrow}>
        <TextInput
          label={t("distill.suffix")}
          hint={t("distill.suffix_hint")}
          error={isSuffix(choices.suffix) ? null : t("distill.suffix_wrong")}
          maxLength={64}
          value={choices.suffix}
          onChange={(event) => set({ suffix: event.target.value || null })}
        />
      </div>
    </div>
  );
}

function Student({ model, chosen, onChoose }: { model: Model; chosen: boolean; onChoose: () => void }) {
  const t = useText();
  const { usd } = useFormat();
  const { price } = model;
  return (
    <label className={styles.student} data-chosen={chosen}>
      <input type="radio" name="student" checked={chosen} onChange={onChoose} />
      <span className={styles.about}>
        <span className="row">
          <strong className="said">{model.name}</strong>
          <Badge tone="student">{t(model.kind === "fine_tuned" ? "distill.kind_tuned" : "distill.kind_base")}</Badge>
        </span>
        <span className="small">{t(purposeOf(model), { base: model.base ?? "" })}</span>
        <span className="small quiet">
          {t("distill.student_prices", {
            training: usd(price.training),
            input: usd(price.input),
            output: usd(price.output),
            hour: usd(price.usd_per_hosting_hour),
          })}
        </span>
      </span>
    </label>
  );
}

function purposeOf(model: Model) {
  if (model.kind === "fine_tuned") return "distill.for_tuned" as const;
  return model.name === SCRATCH ? ("distill.for_scratch" as const) : ("distill.for_base" as const);
}
