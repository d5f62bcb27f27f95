// What a row says, column by column. On narrow lists the same cells make a card.

import { createColumnHelper, tableFeatures } from "@tanstack/react-table";
import { createContext, useContext } from "react";
import type { CompletionRow } from "../../api/types";
import { type TextKey, useText } from "../../i18n";
import { Badge, useFormat, When } from "../../ui";
import styles from "./list.module.css";
import { isSelected, type Selection } from "./selection";

/** How many metadata pairs have room. */
const CHIPS = 2;

/** What the cells of a row can do. */
export interface RowDeeds {
  selection: Selection;
  loaded: number;
  toggleAll: (on: boolean) => void;
  toggle: (id: string, extend: boolean) => void;
  narrowTo: (key: string, value: string) => void;
  open: (id: string) => void;
}

export const RowDeedsContext = createContext<RowDeeds | null>(null);

function useDeeds(): RowDeeds {
  const deeds = useContext(RowDeedsContext);
  if (!deeds) throw new Error("a row outside of its list");
  return deeds;
}

const features = tableFeatures({});
const column = createColumnHelper<typeof features, CompletionRow>();
const named = (name: TextKey) => () => <Name name={name} />;

export const COLUMNS = column.columns([
  column.display({ id: "chosen", header: () => <ChooseAll />, cell: ({ row }) => <Choose row={row.original} /> }),
  column.display({ id: "time", header: named("completions.time"), cell: ({ row }) => <Time row={row.original} /> }),
  column.display({ id: "model", header: named("completions.model"), cell: ({ row }) => <Model row={row.original} /> }),
  column.display({ id: "said", header: named("completions.said"), cell: ({ row }) => <Said row={row.original} /> }),
  column.display({
    id: "metadata",
    header: named("completions.metadata"),
    cell: ({ row }) => <Metadata row={row.original} />,
  }),
  column.display({
    id: "tokens",
    header: named("completions.tokens"),
    cell: ({ row }) => <Tokens row={row.original} />,
  }),
  column.display({
    id: "latency",
    header: named("completions.latency"),
    cell: ({ row }) => <Latency row={row.original} />,
  }),
  column.display({ id: "price", header: named("completions.price"), cell: ({ row }) => <Price row={row.original} /> }),
]);

function Name({ name }: { name: TextKey }) {
  return useText()(name);
}

function ChooseAll() {
  const t = useText();
  const { selection, loaded, toggleAll } = useDeeds();
  const all = selection.kind === "all" || (loaded > 0 && selection.ids.size >= loaded);
  const some = !all && selection.kind === "ids" && selection.ids.size > 0;
  return (
    <label className={styles.choose}>
      <input
        type="checkbox"
        ref={(box) => {
          if (box) box.indeterminate = some;
        }}
        checked={all}
        onChange={() => toggleAll(!all)}
      />
      <span className={styles.chooseAll}>{t("completions.select_loaded")}</span>
    </label>
  );
}

function Choose({ row }: { row: CompletionRow }) {
  const t = useText();
  const { selection, toggle } = useDeeds();
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the row must not open when its box is pressed, which has the keys
    <label className={styles.choose} onClick={(event) => event.stopPropagation()}>
      <input
        type="checkbox"
        tabIndex={-1}
        aria-label={t("completions.select_row", { question: row.question.slice(0, 60) || row.id })}
        checked={isSelected(selection, row)}
        onChange={(event) => toggle(row.id, (event.nativeEvent as MouseEvent).shiftKey === true)}
      />
    </label>
  );
}

function Time({ row }: { row: CompletionRow }) {
  return <When seconds={row.created_at} />;
}

function Model({ row }: { row: CompletionRow }) {
  return (
    <bdi className={styles.line} title={row.model}>
      {row.model}
    </bdi>
  );
}

function Said({ row }: { row: CompletionRow }) {
  const t = useText();
  return (
    <>
      <span className={styles.question} dir="auto">
        {row.question || <span className="quiet">{t("completions.no_question")}</span>}
      </span>
      <span className={styles.answer}>
        {row.status === "incomplete" && <Badge tone="warn">{t("completions.status_incomplete")}</Badge>}
        {row.tool_calls.map((name, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the same tool may be called twice
          <Badge key={index}>{t("completions.calls", { name })}</Badge>
        ))}
        <span className={styles.line} dir="auto">
          {row.answer}
        </span>
      </span>
    </>
  );
}

function Metadata({ row }: { row: CompletionRow }) {
  const t = useText();
  const { narrowTo } = useDeeds();
  const pairs = Object.entries(row.metadata);
  return (
    <span className={styles.pairs} title={pairs.map(([key, value]) => `${key}: ${value}`).join("\n")}>
      {pairs.slice(0, CHIPS).map(([key, value]) => (
        <button
          key={key}
          type="button"
          tabIndex={-1}
          className={styles.pair}
          aria-label={t("completions.filter_by", { key, value })}
          onClick={(event) => {
            event.stopPropagation();
            narrowTo(key, value);
          }}
        >
          <bdi className={styles.pairKey}>{key}</bdi> <bdi>{value}</bdi>
        </button>
      ))}
      {pairs.length > CHIPS && <span className={styles.morePairs}>{`+${pairs.length - CHIPS}`}</span>}
    </span>
  );
}

function Tokens({ row }: { row: CompletionRow }) {
  const t = useText();
  const format = useFormat();
  const { prompt_tokens, completion_tokens } = row;
  return (
    <span title={t("completions.tokens_in_out", { prompt: prompt_tokens, completion: completion_tokens })}>
      {format.number(prompt_tokens + completion_tokens)}{" "}
      <span className={styles.unit}>{t("completions.tokens_unit")}</span>
    </span>
  );
}

function Latency({ row }: { row: CompletionRow }) {
  return useFormat().duration(row.latency_ms);
}

function Price({ row }: { row: CompletionRow }) {
  return useFormat().money(row.cost_microusd);
}
