import { useText } from "../../i18n";
import { Select, TextInput, useAddress } from "../../ui";
import { GROUPS, type Group, MEASURES, type Measure } from "./groups";
import { PRESETS, type Range } from "./range";
import styles from "./usage.module.css";

/** Which usage is shown, and how; kept in the address. */
export function Controls({ group, measure, range }: { group: Group; measure: Measure; range: Range }) {
  const t = useText();
  const { set } = useAddress();
  const setDates = (from: string, to: string) => set({ from: from || null, to: to || null, range: null });
  return (
    <div className={styles.controls}>
      <Select
        label={t("usage.group")}
        value={group}
        choices={GROUPS.map((value) => ({ value, label: t(`usage.by_${value}`) }))}
        onChange={(event) => set({ group: event.target.value })}
      />
      <Select
        label={t("usage.range")}
        value={range.chosen}
        choices={[...PRESETS, "custom" as const].map((value) => ({ value, label: t(`usage.range_${value}`) }))}
        onChange={(event) =>
          event.target.value === "custom"
            ? setDates(range.from, range.to)
            : set({ range: event.target.value, from: null, to: null })
        }
      />
      <TextInput
        label={t("usage.from")}
        type="date"
        value={range.from}
        max={range.to}
        onChange={(event) => setDates(event.target.value, range.to)}
      />
      <TextInput
        label={t("usage.to")}
        type="date"
        value={range.to}
        min={range.from}
        onChange={(event) => setDates(range.from, event.target.value)}
      />
      <Select
        label={t("usage.show")}
        value={measure}
        choices={MEASURES.map((value) => ({ value, label: t(`usage.show_${value}`) }))}
        onChange={(event) => set({ show: event.target.value })}
      />
    </div>
  );
}
