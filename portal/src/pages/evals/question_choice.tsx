import { useQuery } from "@tanstack/react-query";
import { useId } from "react";
import { ALL_FACETS } from "../../api/shared";
import { useText } from "../../i18n";
import { Button, ErrorNote, IconButton, Select } from "../../ui";
import type { Comparison, Questions } from "./comparison";
import styles from "./evals.module.css";

interface QuestionChoiceProps {
  comparison: Comparison;
  /** Whether a fine-tuned model is chosen, whose training says which questions it is for. */
  hasJob: boolean;
  onChange: (changes: Partial<Comparison>) => void;
}

/** Which stored completions are asked again. */
export function QuestionChoice({ comparison, hasJob, onChange }: QuestionChoiceProps) {
  const t = useText();
  const group = useId();
  const questions: Questions = hasJob ? comparison.questions : "filter";
  const radio = (value: Questions, disabled = false) => (
    <label className={styles.radio}>
      <input
        type="radio"
        name={group}
        value={value}
        checked={questions === value}
        disabled={disabled}
        onChange={() => onChange({ questions: value })}
      />
      <span className={disabled ? "quiet" : undefined}>{t(`evals.questions_${value}`)}</span>
    </label>
  );
  return (
    <fieldset className="field">
      <legend className="field-label">{t("evals.questions")}</legend>
      <div className={styles.radios}>
        {radio("training", !hasJob)}
        {radio("filter")}
      </div>
      {questions === "filter" && <FilterChoice comparison={comparison} onChange={onChange} />}
    </fieldset>
  );
}

function FilterChoice({ comparison, onChange }: Omit<QuestionChoiceProps, "hasJob">) {
  const t = useText();
  const { model, pairs } = comparison;
  const facets = useQuery(ALL_FACETS);
  if (facets.error) return <ErrorNote error={facets.error} onRetry={() => facets.refetch()} />;
  if (!facets.data) return null;
  const { models, metadata } = facets.data;
  const change = (at: number, pair: { key: string; value: string }) =>
    onChange({ pairs: pairs.map((before, place) => (place === at ? pair : before)) });
  const named = (values: { value: string; count: number }[]) =>
    values.map(({ value, count }) => ({ value, label: t("evals.value_count", { value, number: count }) }));
  return (
    <div className="stack">
      <Select
        label={t("evals.answered_by")}
        value={model}
        choices={[{ value: "", label: t("evals.answered_by_any") }, ...named(models)]}
        onChange={(event) => onChange({ model: event.target.value })}
      />
      {pairs.map((pair, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a pair has no name of its own while it is chosen
        <div className={styles.pair} key={at}>
          <Select
            label={t("evals.metadata_key")}
            value={pair.key}
            choices={[
              { value: "", label: t("evals.choose") },
              ...metadata.map(({ key }) => ({ value: key, label: key })),
            ]}
            onChange={(event) => change(at, { key: event.target.value, value: "" })}
          />
          <Select
            label={t("evals.metadata_value")}
            value={pair.value}
            choices={[
              { value: "", label: t("evals.choose") },
              ...named(metadata.find(({ key }) => key === pair.key)?.values ?? []),
            ]}
            onChange={(event) => change(at, { key: pair.key, value: event.target.value })}
          />
          <IconButton
            icon="close"
            label={t("evals.metadata_remove")}
            onClick={() => onChange({ pairs: pairs.filter((_, place) => place !== at) })}
          />
        </div>
      ))}
      {metadata.length > 0 && (
        <div>
          <Button icon="plus" onClick={() => onChange({ pairs: [...pairs, { key: "", value: "" }] })}>
            {t("evals.metadata_add")}
          </Button>
        </div>
      )}
    </div>
  );
}
