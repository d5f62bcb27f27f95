// Stored completions: which are shown, which are selected, which one is open, and what is done with them.

import { useCallback, useMemo, useReducer, useRef, useState } from "react";
import { useSearchParams } from "wouter";
import type { CompletionRow, Count, Filter } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Dialog, Empty, ErrorNote, Page, Waiting } from "../../ui";
import { type Target, useActions } from "./actions";
import { BulkBar, UnderWay } from "./bulk";
import { Chips } from "./chips";
import styles from "./completions.module.css";
import { Distill } from "./distill";
import { ExportDialog } from "./export";
import { Facets } from "./facets";
import { conditionsOf, filterOf, havingPair, isEmpty, keyOf, withFilter } from "./filter";
import { CompletionList } from "./list";
import { DetailPanel } from "./panel";
import { useCount, useFacets, useOtherValues, useRows } from "./rows";
import { SearchBox } from "./search";
import { isNothing, NOTHING, select } from "./selection";
import { FirstCall } from "./starters";
import { Summary } from "./summary";

export default function CompletionsPage() {
  const t = useText();
  const { filter, setFilter, opened, open } = useAddress();
  const [selection, deed] = useReducer(select, NOTHING);
  const [scrolled, setScrolled] = useState(false);
  const [narrowing, setNarrowing] = useState(false);
  const [exporting, setExporting] = useState(false);
  const list = useRows(filter, scrolled || !isNothing(selection));
  const known = !list.waiting && !list.stale && !list.error;
  const count = useCount(filter, known);
  const facets = useFacets(filter, known);
  const others = useOtherValues(filter, known);
  const actions = useActions(filter);
  const rows = useMemo(() => list.rows.filter((row) => !actions.isLeaving(row)), [list.rows, actions.isLeaving]);
  const order = useMemo(() => rows.map((row) => row.id), [rows]);
  const target: Target =
    selection.kind === "all"
      ? { filter: { ...filter, up_to: selection.upTo } }
      : { ids: order.filter((id) => selection.ids.has(id)) };
  const meant = useCount("filter" in target ? target.filter : filter, known && "filter" in target);

  const narrow = (next: Filter, replace = false) => {
    deed({ type: "clear" });
    setFilter(next, replace);
  };
  const remove = async () => {
    await actions.delete(target);
    deed({ type: "clear" });
    if (opened && ("filter" in target || target.ids.includes(opened))) open(null);
  };
  const removeOpened = async (id: string) => {
    const { older, newer } = neighbours(rows, id);
    await actions.delete({ ids: [id] });
    deed({ type: "gone", ids: new Set([id]) });
    open(older ?? newer ?? null);
  };
  const left = leftOf(count.data, list.rows.length, rows.length);
  const chosen =
    selection.kind === "all"
      ? (leftOf(meant.data, list.rows.length, rows.length) ?? selection.count)
      : { count: "ids" in target ? target.ids.length : 0, at_least: false };
  const isBare = known && rows.length === 0 && isEmpty(filter);
  const panel = (
    <Facets
      facets={facets.data}
      others={others}
      filter={filter}
      stale={facets.isPlaceholderData}
      onChange={(next) => narrow(next)}
    />
  );
  return (
    <div className={styles.beside} data-open={opened !== null}>
      <Page
        fill
        title={t("completions.title")}
        actions={
          isNothing(selection) &&
          rows.length > 0 && (
            <>
              <Button icon="download" onClick={() => setExporting(true)}>
                {t("completions.export")}
              </Button>
              <Distill target={{ filter }} />
            </>
          )
        }
      >
        {isBare ? (
          <FirstCall />
        ) : (
          <div className={styles.columns}>
            <aside className={styles.facets} aria-label={t("completions.filters")}>
              {panel}
            </aside>
            <div className={styles.found}>
              <div className={styles.tools}>
                <SearchBox
                  search={filter.search ?? ""}
                  onSearch={(search) => narrow({ ...withoutSearch(filter), ...(search ? { search } : {}) }, true)}
                />
                <span className={styles.narrowing}>
                  <Button icon="filter" onClick={() => setNarrowing(true)}>
                    {conditionsOf(filter)
                      ? t("completions.filters_count", { count: conditionsOf(filter) })
                      : t("completions.filters")}
                  </Button>
                </span>
              </div>
              <Chips filter={filter} onChange={(next) => narrow(next)} />
              <UnderWay actions={actions} />
              {isNothing(selection) ? (
                <Summary count={left} stale={list.stale || count.isPlaceholderData} list={list} />
              ) : (
                <BulkBar
                  selection={selection}
                  target={target}
                  loaded={order}
                  size={chosen}
                  count={left}
                  deed={deed}
                  onTag={(metadata) => actions.tag(target, metadata)}
                  onDelete={remove}
                />
              )}
              {list.error != null && <ErrorNote error={list.error} onRetry={list.retry} />}
              {list.waiting && <Waiting />}
              {known && rows.length === 0 && (
                <Empty title={t("completions.none_match")}>
                  <p>{t("completions.none_match_text")}</p>
                  <div>
                    <Button onClick={() => narrow({})}>{t("completions.clear_filters")}</Button>
                  </div>
                </Empty>
              )}
              {rows.length > 0 && (
                <CompletionList
                  filterKey={keyOf(filter)}
                  list={list}
                  rows={rows}
                  total={left}
                  opened={opened}
                  selection={selection}
                  deed={deed}
                  onOpen={open}
                  onPair={(key, value) => narrow(havingPair(filter, key, value))}
                  onScrolled={setScrolled}
                  onOlder={(before) => narrow({ ...filter, created_before: before })}
                />
              )}
            </div>
          </div>
        )}
      </Page>
      {narrowing && (
        <Dialog title={t("completions.filters")} onClose={() => setNarrowing(false)}>
          {panel}
        </Dialog>
      )}
      {exporting && <ExportDialog target={{ filter }} onClose={() => setExporting(false)} />}
      {opened && (
        <DetailPanel id={opened} neighbours={neighbours(rows, opened)} onOpen={open} onDelete={removeOpened} />
      )}
    </div>
  );
}

/** The filter and the opened row, which are in the address. */
function useAddress() {
  const [address, setAddress] = useSearchParams();
  const text = address.toString();
  // The same object as long as the filter is the same.
  const latest = useRef<Filter>({});
  const filter = useMemo(() => {
    const read = filterOf(new URLSearchParams(text));
    if (keyOf(read) !== keyOf(latest.current)) latest.current = read;
    return latest.current;
  }, [text]);
  const opened = address.get("open");
  const setFilter = useCallback(
    (next: Filter, replace: boolean) => setAddress((now) => withFilter(now, next), { replace }),
    [setAddress],
  );
  const open = useCallback(
    (id: string | null) =>
      setAddress(
        (now) => {
          const next = new URLSearchParams(now);
          next.delete("open");
          if (id !== null) next.set("open", id);
          return next;
        },
        // Back closes the panel; it does not walk through every row that was looked at.
        { replace: opened !== null },
      ),
    [setAddress, opened],
  );
  return { filter, setFilter, opened, open };
}

function withoutSearch({ search: _, ...others }: Filter): Filter {
  return others;
}

/** What is being deleted is not counted any more. */
function leftOf(count: Count | undefined, loaded: number, shown: number): Count | undefined {
  if (!count || loaded === shown) return count;
  return shown === 0 ? { count: 0, at_least: false } : { ...count, count: count.count - (loaded - shown) };
}

function neighbours(rows: CompletionRow[], id: string) {
  const at = rows.findIndex((row) => row.id === id);
  return { newer: at > 0 ? rows[at - 1]?.id : undefined, older: at >= 0 ? rows[at + 1]?.id : undefined };
}
