// What the completions have in common, as conditions to choose: model, status, time, metadata.

import { type FormEvent, type ReactNode, useId, useState } from "react";
import type { Facets as Counted, FacetValue, Filter } from "../../api/types";
import { useText } from "../../i18n";
import { Button, TextInput, useFormat } from "../../ui";
import styles from "./completions.module.css";
import { having, havingPair } from "./filter";
import type { OtherValues } from "./rows";
import { TimeRange } from "./times";

const FIRST_VALUES = 6;
const OPEN_KEYS = 8;
const STATUSES = ["completed", "incomplete"] as const;

interface FacetsProps {
  facets: Counted | undefined;
  /** By the name of a chosen condition, the facets without it: what there is to choose instead. */
  others: OtherValues;
  filter: Filter;
  stale: boolean;
  onChange: (filter: Filter) => void;
}

export function Facets({ facets, others, filter, stale, onChange }: FacetsProps) {
  const t = useText();
  const settled = facets !== undefined && !stale;
  const pairs = new Map(Object.entries(filter.metadata ?? {}));
  const counted = (name: string) => others.get(name) ?? facets;
  // Which there are is known before how many of each.
  const known = counted("status")?.statuses;
  const statuses = STATUSES.map((value) => {
    const found = known?.find((one) => one.value === value);
    return { value, count: found?.count ?? (settled ? 0 : null) };
  });
  return (
    <div className={styles.facetList} data-stale={stale}>
      {(filter.model !== undefined || facets?.models.length !== 0) && (
        <Group name={t("completions.model")}>
          <Values
            name={t("completions.model")}
            values={counted("model")?.models ?? []}
            settled={settled}
            chosen={filter.model}
            onChoose={(value) => onChange(having(filter, "model", value))}
          />
        </Group>
      )}
      <Group name={t("completions.status")}>
        <Values
          name={t("completions.status")}
          values={statuses}
          settled={settled}
          chosen={filter.status}
          shown={(value) => t(`completions.status_${value as (typeof STATUSES)[number]}`)}
          onChoose={(value) => onChange(having(filter, "status", value as Filter["status"]))}
        />
      </Group>
      <Group name={t("completions.time")}>
        <TimeRange filter={filter} onChange={onChange} />
      </Group>
      {keysOf(facets, filter).map((key, index) => {
        const facet = counted(`metadata[${key}]`)?.metadata.find((one) => one.key === key);
        return (
          <Group key={key} name={key} closed={index >= OPEN_KEYS && !pairs.has(key)}>
            <Values
              name={key}
              values={facet?.values ?? []}
              settled={settled}
              chosen={pairs.get(key)}
              onChoose={(value) => onChange(havingPair(filter, key, value ?? null))}
            />
            {facet?.more && <p className="small quiet">{t("completions.more_values")}</p>}
          </Group>
        );
      })}
      <PairForm onAdd={(key, value) => onChange(havingPair(filter, key, value))} />
      {facets?.sampled && <p className="small quiet">{t("completions.sampled")}</p>}
    </div>
  );
}

function Group({ name, closed = false, children }: { name: string; closed?: boolean; children: ReactNode }) {
  return (
    <details className={styles.group} open={!closed}>
      <summary>
        <bdi className={styles.groupName}>{name}</bdi>
      </summary>
      {children}
    </details>
  );
}

/** `count`: null until it is known. */
type Value = Omit<FacetValue, "count"> & { count: number | null };

interface ValuesProps {
  name: string;
  values: Value[];
  /** Whether a value that is not among them has no rows; else how many it has is not known yet. */
  settled: boolean;
  chosen: string | undefined;
  shown?: (value: string) => string;
  /** undefined: the chosen one was pressed again. */
  onChoose: (value: string | undefined) => void;
}

function Values({ name, values, settled, chosen, shown = (value) => value, onChoose }: ValuesProps) {
  const t = useText();
  const format = useFormat();
  const [all, setAll] = useState(false);
  const known = withChosen(values, chosen, settled ? 0 : null);
  const seen = all ? known : known.slice(0, FIRST_VALUES);
  return (
    <ul className={styles.values} aria-label={name}>
      {seen.map(({ value, count }) => (
        <li key={value}>
          <button
            type="button"
            className={styles.value}
            aria-pressed={value === chosen}
            title={value}
            onClick={() => onChoose(value === chosen ? undefined : value)}
          >
            <bdi className={styles.valueName}>{shown(value) || t("completions.empty_value")}</bdi>
            <span className={styles.valueCount}>{count !== null && format.number(count)}</span>
          </button>
        </li>
      ))}
      {known.length > seen.length && (
        <li>
          <button type="button" className={styles.moreValues} onClick={() => setAll(true)}>
            {t("completions.show_values", { count: known.length - seen.length })}
          </button>
        </li>
      )}
    </ul>
  );
}

/** A pair that no list shows: one of many values, or one that is yet to come. */
function PairForm({ onAdd }: { onAdd: (key: string, value: string) => void }) {
  const t = useText();
  const title = useId();
  const [key, setKey] = useState("");
  const [value, setValue] = useState("");
  const add = (event: FormEvent) => {
    event.preventDefault();
    if (!key.trim()) return;
    onAdd(key, value);
    setKey("");
    setValue("");
  };
  return (
    <form className={styles.pairForm} onSubmit={add} aria-labelledby={title}>
      <span id={title} className={styles.groupName}>
        {t("completions.other_pair")}
      </span>
      <TextInput
        bare
        label={t("completions.key")}
        placeholder={t("completions.key")}
        value={key}
        onChange={(event) => setKey(event.target.value)}
      />
      <TextInput
        bare
        label={t("completions.value")}
        placeholder={t("completions.value")}
        value={value}
        onChange={(event) => setValue(event.target.value)}
      />
      <Button type="submit" icon="plus" disabled={!key.trim()}>
        {t("completions.add_filter")}
      </Button>
    </form>
  );
}

/** The chosen value is always among the first, to be taken away, even where nothing has it. */
function withChosen(values: Value[], chosen: string | undefined, unseen: number | null): Value[] {
  const seen = values.slice(0, FIRST_VALUES).some((one) => one.value === chosen);
  if (chosen === undefined || seen) return values;
  const own = values.find((one) => one.value === chosen) ?? { value: chosen, count: unseen };
  return [own, ...values.filter((one) => one.value !== chosen)];
}

function keysOf(facets: Counted | undefined, filter: Filter): string[] {
  return [...new Set([...(facets?.metadata.map((one) => one.key) ?? []), ...Object.keys(filter.metadata ?? {})])];
}
