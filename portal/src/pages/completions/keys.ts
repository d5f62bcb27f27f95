// The list by keyboard and mouse: arrows move the active row, Space selects, Shift extends, Enter opens.

import type { KeyboardEvent, MouseEvent } from "react";
import type { RowDeeds } from "./columns";
import type { Deed } from "./selection";

interface GridKeys {
  /** The ids of the rows as they are shown. */
  order: () => string[];
  active: string | null;
  /** How many rows are in sight. */
  page: number;
  deed: (deed: Deed) => void;
  onActive: (id: string, index: number, extending: boolean) => void;
  onOpen: (id: string) => void;
}

export function onGridKey(event: KeyboardEvent<HTMLElement>, grid: GridKeys): void {
  // Keys pressed in a row's own buttons are theirs.
  if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
  if (moved(event, grid) || deedOf(event, grid)) event.preventDefault();
}

export function onRowClick(event: MouseEvent, id: string, deeds: RowDeeds): void {
  const selects = event.shiftKey || event.ctrlKey || event.metaKey;
  const marked = window.getSelection();
  if (selects) {
    marked?.removeAllRanges();
    deeds.toggle(id, event.shiftKey);
  } else if (marked?.isCollapsed !== false) {
    // Else text was marked, to be copied.
    deeds.open(id);
  }
}

function moved({ key, shiftKey }: KeyboardEvent, { order, active, page, deed, onActive }: GridKeys): boolean {
  const steps = stepsOf(key, page);
  const rows = order();
  if (steps === null || !rows.length) return false;
  const at = active === null ? -1 : rows.indexOf(active);
  const index = Math.max(0, Math.min(rows.length - 1, at + steps));
  const id = rows[index] as string;
  if (shiftKey) deed({ type: "extend", to: id, from: at < 0 ? id : (active as string), order: rows });
  onActive(id, index, shiftKey);
  return true;
}

function deedOf({ key, shiftKey }: KeyboardEvent, { order, active, deed, onOpen }: GridKeys): boolean {
  if (key === "Escape") {
    deed({ type: "clear" });
    return true;
  }
  if (active === null) return false;
  if (key === "Enter") onOpen(active);
  else if (key === " " && shiftKey) deed({ type: "extend", to: active, from: active, order: order() });
  else if (key === " ") deed({ type: "toggle", id: active, order: order() });
  else return false;
  return true;
}

/** How many rows a key moves by; null for other keys. */
function stepsOf(key: string, page: number): number | null {
  const far = Number.MAX_SAFE_INTEGER;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -far, End: far };
  return Object.hasOwn(steps, key) ? steps[key as keyof typeof steps] : null;
}
