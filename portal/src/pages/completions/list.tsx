// The rows: only those in sight are in the page. By keyboard, one row at a time is the active one.

import { tableFeatures, useTable } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState } from "react";
import type { CompletionRow, Count } from "../../api/types";
import { useText } from "../../i18n";
import { Button, useFormat } from "../../ui";
import { Arrived } from "./arrived";
import { COLUMNS, type RowDeeds, RowDeedsContext } from "./columns";
import { onGridKey, onRowClick } from "./keys";
import styles from "./list.module.css";
import type { Rows } from "./rows";
import { type Deed, isSelected, type Selection } from "./selection";
import { useWidth } from "./width";

const ROW_PX = 57;
const CARD_PX = 116;
const HEAD_PX = 47;
const CARDS_BELOW_PX = 720;
const NEAR_END_ROWS = 20;
const FEATURES = tableFeatures({});

interface ListProps {
  list: Rows;
  rows: CompletionRow[];
  total: Count | undefined;
  filterKey: string;
  opened: string | null;
  selection: Selection;
  deed: (deed: Deed) => void;
  onOpen: (id: string) => void;
  onPair: (key: string, value: string) => void;
  onScrolled: (scrolled: boolean) => void;
  /** Go on from a time, where as many rows are loaded as are kept. */
  onOlder: (before: number) => void;
}

export function CompletionList(props: ListProps) {
  const { list, rows, total, filterKey, opened, selection, deed, onOpen, onPair, onScrolled, onOlder } = props;
  const t = useText();
  const scroller = useRef<HTMLTableElement>(null);
  const cards = useWidth(scroller) < CARDS_BELOW_PX;
  const rowPx = cards ? CARD_PX : ROW_PX;
  const [active, setActive] = useState<string | null>(null);

  const table = useTable({ features: FEATURES, columns: COLUMNS, data: rows, getRowId: (row) => row.id });
  const { rows: modelled } = table.getRowModel();
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowPx,
    getItemKey: (index) => rows[index]?.id ?? index,
    overscan: 8,
    scrollMargin: HEAD_PX,
    scrollPaddingStart: HEAD_PX,
  });
  // biome-ignore lint/correctness/useExhaustiveDependencies: another form, another height of every row
  useEffect(() => virtual.measure(), [rowPx]);
  useEffect(() => {
    if (!list.stale && filterKey !== null) scroller.current?.scrollTo({ top: 0 });
  }, [list.stale, filterKey]);
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (list.more && !list.stale && last >= rows.length - NEAR_END_ROWS) list.loadMore();
  }, [list.more, list.stale, list.loadMore, last, rows.length]);

  // The row that the panel shows, or has shown, stays in sight whatever form the list takes; the keys go on from it.
  // biome-ignore lint/correctness/useExhaustiveDependencies: rows that arrive must not move what is seen
  useEffect(() => {
    if (opened) setActive(opened);
    const at = rows.findIndex((row) => row.id === (opened ?? active));
    if (at >= 0) virtual.scrollToIndex(at);
  }, [opened, rowPx]);

  const order = () => rows.map((row) => row.id);
  const keys = {
    order,
    active,
    page: Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / rowPx) - 1),
    deed,
    onActive: (id: string, index: number, extending: boolean) => {
      setActive(id);
      virtual.scrollToIndex(index);
      if (opened && !extending) onOpen(id);
    },
    onOpen,
  };
  const deeds: RowDeeds = {
    selection,
    loaded: rows.length,
    toggleAll: (on) => deed({ type: "these", ids: on ? order() : [] }),
    toggle: (id, extend) => {
      setActive(id);
      if (extend) deed({ type: "extend", to: id, from: active ?? id, order: order() });
      else deed({ type: "toggle", id, order: order() });
    },
    narrowTo: onPair,
    open: (id) => {
      setActive(id);
      onOpen(id);
    },
  };
  const activeInSight = items.some((item) => rows[item.index]?.id === active);
  return (
    <RowDeedsContext value={deeds}>
      <div className={styles.frame} data-cards={cards} data-stale={list.stale}>
        <Arrived
          list={list}
          onShow={() => {
            list.showHeld();
            scroller.current?.scrollTo({ top: 0 });
          }}
        />
        <table
          ref={scroller}
          className={styles.scroller}
          // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: rows are chosen and opened in it
          role="grid"
          aria-label={t("completions.title")}
          aria-rowcount={total && !total.at_least ? total.count + 1 : -1}
          aria-multiselectable="true"
          aria-busy={list.stale || list.loadingMore}
          aria-activedescendant={active && activeInSight ? `row-${active}` : undefined}
          tabIndex={0}
          onKeyDown={(event) => onGridKey(event, keys)}
          onFocus={(event) => {
            if (event.target === event.currentTarget && active === null) setActive(rows[0]?.id ?? null);
          }}
          onScroll={(event) => onScrolled(event.currentTarget.scrollTop > rowPx)}
        >
          <thead className={styles.head}>
            {table.getHeaderGroups().map((group) => (
              <tr aria-rowindex={1} className={styles.row} key={group.id}>
                {group.headers.map((header) => (
                  <th scope="col" data-column={header.column.id} key={header.id}>
                    <table.FlexRender header={header} />
                  </th>
                ))}
              </tr>
            ))}
          </thead>
          <tbody className={styles.body} style={{ height: virtual.getTotalSize() }}>
            {items.map((item) => {
              const row = modelled[item.index];
              if (!row) return null;
              return (
                <tr
                  key={item.key}
                  id={`row-${row.id}`}
                  aria-rowindex={item.index + 2}
                  aria-selected={isSelected(selection, row.original)}
                  className={styles.row}
                  data-active={row.id === active}
                  data-opened={row.id === opened}
                  style={{ height: item.size, transform: `translateY(${item.start - HEAD_PX}px)` }}
                  onClick={(event) => onRowClick(event, row.id, deeds)}
                >
                  {row.getAllCells().map((cell) => (
                    <td data-column={cell.column.id} key={cell.id}>
                      <table.FlexRender cell={cell} />
                    </td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
        {list.full && <Full rows={rows} onOlder={onOlder} />}
      </div>
    </RowDeedsContext>
  );
}

/** As many rows are loaded as are kept: the older ones are another list. */
function Full({ rows, onOlder }: { rows: CompletionRow[]; onOlder: (before: number) => void }) {
  const t = useText();
  const format = useFormat();
  const last = rows.at(-1);
  if (!last) return null;
  return (
    <div className={styles.foot}>
      <span>{t("completions.full", { count: rows.length })}</span>
      <Button onClick={() => onOlder(last.created_at + 1)}>
        {t("completions.older_than", { time: format.time(last.created_at) })}
      </Button>
    </div>
  );
}
