// How the student learns: which method its rows allow, without its system prompt, and from more than the words.

import { useText } from "../../i18n";
import { Badge, Check, Select, TextInput, useFormat } from "../../ui";
import { guessedTokens } from "../playground/answer";
import { useStudents } from "./asking";
import { isWeight, METHODS, type Method } from "./choices";
import styles from "./distill.module.css";
import type { StepProps } from "./step";
import { type Traits, useTraits } from "./traits";

const SCRATCH = "scratch-small";
const PROMPT_SHOWN = 160;
const HALF = "0.5";

export function MethodChoice({ choices, student, set }: StepProps) {
  const t = useText();
  const { data } = useTraits(choices.source);
  const isStored = choices.source.kind !== "file";
  const isOpen = (method: Method) => (method === "dpo") === (choices.method === "dpo");
  return (
    <>
      <fieldset className={styles.students}>
        <legend className="field-label">{t("distill.method")}</legend>
        {METHODS.map((method) => (
          <label key={method} className={styles.student} data-chosen={method === choices.method}>
            <input
              type="radio"
              name="method"
              checked={method === choices.method}
              disabled={!isOpen(method)}
              onChange={() => set({ method: method === "supervised" ? null : method })}
            />
            <span className={styles.about}>
              <span className="row">
                <strong>{t(`distill.method_${method}`)}</strong>
                {!isOpen(method) && <Badge>{t("distill.method_not_these_rows")}</Badge>}
              </span>
              <span className="small">{t(`distill.about_method_${method}`)}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {choices.method === "on_policy" && <Judge chosen={choices.judge} student={student} set={set} />}
      <DropPrompt chosen={choices.dropPrompt} prompt={data?.prompt ?? null} set={set} />
      {choices.method === "supervised" && <SoftLabels typed={choices.softLabels} {...{ data, isStored, set }} />}
    </>
  );
}

/** Who judges what the student says: a model whose weights are here, other than one that knows nothing. */
function Judge({ chosen, student, set }: { chosen: string } & Pick<StepProps, "student" | "set">) {
  const t = useText();
  const models = useStudents();
  const names = (models.data ?? []).map((model) => model.name).filter((name) => name !== SCRATCH && name !== student);
  const known = chosen && !names.includes(chosen) ? [chosen, ...names] : names;
  return (
    <div className={styles.narrow}>
      <Select
        label={t("distill.on_policy_teacher")}
        hint={t("distill.on_policy_teacher_hint")}
        choices={[
          { value: "", label: t("distill.on_policy_itself") },
          ...known.map((name) => ({ value: name, label: name })),
        ]}
        value={chosen}
        onChange={(event) => set({ teacher: event.target.value || null })}
      />
    </div>
  );
}

function DropPrompt({ chosen, prompt, set }: { chosen: boolean; prompt: string | null } & Pick<StepProps, "set">) {
  const t = useText();
  const { number } = useFormat();
  const choose = (drop: boolean) => set({ system_prompt: drop ? "drop" : null });
  return (
    <fieldset className={styles.hyperparameter}>
      <legend className="field-label">{t("distill.system_prompt")}</legend>
      <p className="small quiet">{t("distill.about_system_prompt")}</p>
      <Check
        label={t("distill.drop_prompt")}
        checked={chosen}
        disabled={prompt === null && !chosen}
        onChange={(event) => choose(event.target.checked)}
      />
      {prompt === null ? (
        <p className="small">{t("distill.no_one_prompt")}</p>
      ) : (
        <>
          <p className="small said quiet">
            {prompt.length > PROMPT_SHOWN ? `${prompt.slice(0, PROMPT_SHOWN)}…` : prompt}
          </p>
          <p className="small">{t("distill.prompt_saves", { tokens: number(guessedTokens(prompt)) })}</p>
        </>
      )}
    </fieldset>
  );
}

interface SoftLabelsProps extends Pick<StepProps, "set"> {
  typed: string;
  data: Traits | undefined;
  isStored: boolean;
}

function SoftLabels({ typed, data, isStored, set }: SoftLabelsProps) {
  const t = useText();
  const isChosen = typed !== "";
  const has = data?.haveSoftLabels ?? false;
  return (
    <fieldset className={styles.hyperparameter}>
      <legend className="field-label">{t("distill.soft_labels")}</legend>
      <p className="small quiet">{t("distill.about_soft_labels")}</p>
      <div className={styles.autoOrOwn}>
        <Check
          label={t("distill.use_soft_labels")}
          checked={isChosen}
          disabled={!has && !isChosen}
          onChange={(event) => set({ soft_label_weight: event.target.checked ? HALF : null })}
        />
        {isChosen && (
          <TextInput
            label={t("distill.soft_label_weight")}
            error={isWeight(typed) ? null : t("distill.soft_labels_wrong")}
            type="number"
            min={0}
            max={1}
            step="any"
            value={typed.trim()}
            onChange={(event) => set({ soft_label_weight: event.target.value || " " })}
          />
        )}
      </div>
      {data && !has && (
        <p className="small">{t(isStored ? "distill.no_soft_labels" : "distill.no_soft_labels_file")}</p>
      )}
    </fieldset>
  );
}
