import type { Filter } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Icon, useFormat } from "../../ui";
import styles from "./completions.module.css";
import { having, havingPair, isEmpty } from "./filter";

interface Chip {
  name: string;
  value: string;
  without: Filter;
}

/** The conditions that are set, each to be taken away. */
export function Chips({ filter, onChange }: { filter: Filter; onChange: (filter: Filter) => void }) {
  const t = useText();
  const chips = useChips(filter);
  if (isEmpty(filter) || !chips.length) return null;
  return (
    <ul className={styles.chips} aria-label={t("completions.chosen_filters")}>
      {chips.map((chip, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a metadata key may be named like another condition
        <li key={index}>
          <button
            type="button"
            className={styles.chip}
            aria-label={t("completions.remove_filter", { name: chip.name, value: chip.value })}
            onClick={() => onChange(chip.without)}
          >
            <bdi className={styles.chipName}>{chip.name}</bdi>
            <bdi className={styles.chipValue}>{chip.value}</bdi>
            <Icon name="close" />
          </button>
        </li>
      ))}
      <li>
        <Button onClick={() => onChange({})}>{t("completions.clear_all")}</Button>
      </li>
    </ul>
  );
}

/** The search has its own field, and is not among them. */
function useChips(filter: Filter): Chip[] {
  const t = useText();
  const format = useFormat();
  const chips: Chip[] = [];
  const add = (name: string, value: string | undefined, without: Filter) => {
    if (value !== undefined) chips.push({ name, value, without });
  };
  add(t("completions.model"), filter.model, having(filter, "model", undefined));
  add(
    t("completions.status"),
    filter.status && t(`completions.status_${filter.status}`),
    having(filter, "status", undefined),
  );
  const { created_after: after, created_before: before } = filter;
  add(
    t("completions.from"),
    after === undefined ? undefined : format.time(after),
    having(filter, "created_after", undefined),
  );
  add(
    t("completions.until"),
    before === undefined ? undefined : format.time(before),
    having(filter, "created_before", undefined),
  );
  add(t("completions.up_to"), filter.up_to, having(filter, "up_to", undefined));
  for (const [key, value] of Object.entries(filter.metadata ?? {})) add(key, value, havingPair(filter, key, null));
  return chips;
}
