// Which completions are shown, as the address bar and the API write it: the same names in both.

import type { CompletionRow, CompletionStatus, Filter } from "../../api/types";

const PAIR = /^metadata\[(.+)\]$/s;
/** Of one length, and in the order in which the calls began. */
const ID = /^chatcmpl-[0-9A-Za-z]{11}$/;
const PLAIN = ["model", "status", "created_after", "created_before", "up_to", "search"] as const;

export const COMPLETIONS = "/v1/stillroom/completions";

/** The filter of an address; what cannot be a filter in it is passed over. */
export function filterOf(address: URLSearchParams): Filter {
  const status = address.get("status");
  const after = secondsOf(address.get("created_after"));
  const before = secondsOf(address.get("created_before"));
  const model = address.get("model");
  const search = address.get("search");
  const last = address.get("up_to");
  const metadata = metadataOf(address);
  return {
    ...(model ? { model } : {}),
    ...(isStatus(status) ? { status } : {}),
    ...(after !== null ? { created_after: after } : {}),
    ...(before !== null ? { created_before: before } : {}),
    ...(last !== null && ID.test(last) ? { up_to: last } : {}),
    ...(Object.keys(metadata).length ? { metadata } : {}),
    ...(search?.trim() ? { search } : {}),
  };
}

/** The conditions as names and values. */
export function pairsOf(filter: Filter): [string, string][] {
  const plain = PLAIN.flatMap((name): [string, string][] => {
    const value = filter[name];
    return value === undefined || value === "" ? [] : [[name, String(value)]];
  });
  const metadata = Object.entries(filter.metadata ?? {});
  return [...plain, ...metadata.map(([key, value]): [string, string] => [`metadata[${key}]`, value])];
}

/** A path of the API with the filter and whatever else is asked. */
export function asked(path: string, filter: Filter, more: Record<string, string | number | undefined> = {}): string {
  const others = Object.entries(more).filter(([, value]) => value !== undefined);
  const query = new URLSearchParams([...pairsOf(filter), ...others.map(([name, value]) => [name, String(value)])]);
  return query.size ? `${path}?${query}` : path;
}

/** The address with another filter; whatever else is in it, such as the opened row, stays. */
export function withFilter(address: URLSearchParams, filter: Filter): URLSearchParams {
  const others = [...address].filter(([name]) => !isFilterName(name));
  return new URLSearchParams([...pairsOf(filter), ...others]);
}

/** The same text for the same filter, whatever the order of its pairs. */
export function keyOf(filter: Filter): string {
  return asked("", { ...filter, metadata: sorted(filter.metadata ?? {}) });
}

/** How many conditions there are. */
export function conditionsOf(filter: Filter): number {
  const { metadata = {}, ...others } = filter;
  return Object.keys(others).length + Object.keys(metadata).length;
}

export const isEmpty = (filter: Filter): boolean => conditionsOf(filter) === 0;

/** The filter with one condition set; undefined takes it away. */
export function having<Name extends keyof Filter>(filter: Filter, name: Name, value: Filter[Name] | undefined): Filter {
  const { [name]: _, ...others } = filter;
  return value === undefined ? others : { ...others, [name]: value };
}

/** The filter with a metadata pair, in place of another value of its key; null takes the key away. */
export function havingPair(filter: Filter, key: string, value: string | null): Filter {
  const { [key]: _, ...others } = filter.metadata ?? {};
  const metadata = value === null ? others : { ...others, [key]: value };
  return having(filter, "metadata", Object.keys(metadata).length ? metadata : undefined);
}

/** For each condition that has values to choose from, its name in an address and the filter without it. */
export function withoutEach(filter: Filter): [string, Filter][] {
  const plain = (["model", "status"] as const).filter((name) => filter[name] !== undefined);
  return [
    ...plain.map((name): [string, Filter] => [name, having(filter, name, undefined)]),
    ...Object.keys(filter.metadata ?? {}).map((key): [string, Filter] => [
      `metadata[${key}]`,
      havingPair(filter, key, null),
    ]),
  ];
}

/** Whether a row matches, as far as a row alone can tell; null when only the search index knows. */
export function matches(row: CompletionRow, filter: Filter): boolean | null {
  const holds =
    (filter.model === undefined || row.model === filter.model) &&
    (filter.status === undefined || row.status === filter.status) &&
    (filter.created_after === undefined || row.created_at >= filter.created_after) &&
    (filter.created_before === undefined || row.created_at < filter.created_before) &&
    (filter.up_to === undefined || row.id <= filter.up_to) &&
    Object.entries(filter.metadata ?? {}).every(([key, value]) => row.metadata[key] === value);
  return holds && filter.search !== undefined ? null : holds;
}

/** Seconds since the epoch as a `datetime-local` field has them, in the reader's own zone. */
export function toLocalInput(seconds: number | undefined): string {
  if (seconds === undefined) return "";
  const at = new Date(seconds * 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${String(at.getFullYear()).padStart(4, "0")}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day}T${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** The other way; undefined for an empty or unfinished field. */
export function fromLocalInput(text: string): number | undefined {
  const at = new Date(text).getTime();
  return Number.isNaN(at) || at < 0 ? undefined : Math.floor(at / 1000);
}

function metadataOf(address: URLSearchParams): Record<string, string> {
  const found: [string, string][] = [];
  for (const [name, value] of address) {
    const key = PAIR.exec(name)?.[1];
    if (key !== undefined) found.push([key, value]);
  }
  return Object.fromEntries(found);
}

function isFilterName(name: string): boolean {
  return (PLAIN as readonly string[]).includes(name) || PAIR.test(name);
}

function isStatus(text: string | null): text is CompletionStatus {
  return text === "completed" || text === "incomplete";
}

function secondsOf(text: string | null): number | null {
  return text !== null && /^\d{1,12}$/.test(text) ? Number(text) : null;
}

function sorted(pairs: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(pairs).sort(([one], [other]) => (one < other ? -1 : 1)));
}
