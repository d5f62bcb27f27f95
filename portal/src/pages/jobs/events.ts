// A job's events, newest first. Every step leaves one, so they are many: only what is new is asked for.

import { get, path } from "../../api/http";
import type { JobEvent, List } from "../../api/types";

/** What is known of the events; `has_more`: whether older ones are not here yet. */
export interface Events {
  data: JobEvent[];
  has_more: boolean;
}

const LARGEST = 100;
const FEW = 20;
/** So many pages at once: the beginning of a job of a thousand steps is here without asking. */
const PAGES = 10;

/** The known events with those that have come since; at first, the newest thousand. */
export async function newer(job: string, known: Events | undefined, signal: AbortSignal): Promise<Events> {
  const have = new Set(known?.data.map((event) => event.id));
  const found: JobEvent[] = [];
  for (let page = 0; page < PAGES; page += 1) {
    const got = await ask(job, found.at(-1)?.id, known && page === 0 ? FEW : LARGEST, signal);
    const fresh = got.data.filter((event) => !have.has(event.id));
    found.push(...fresh);
    if (fresh.length < got.data.length)
      return { data: [...found, ...(known?.data ?? [])], has_more: !!known?.has_more };
    if (!got.has_more) return { data: found, has_more: false };
  }
  return { data: found, has_more: true };
}

/** The known events with a page of older ones. */
export async function older(job: string, known: Events): Promise<Events> {
  const got = await ask(job, known.data.at(-1)?.id, LARGEST);
  return { data: [...known.data, ...got.data], has_more: got.has_more };
}

function ask(job: string, after: string | undefined, limit: number, signal?: AbortSignal): Promise<List<JobEvent>> {
  return get(path(`/v1/fine_tuning/jobs/${encodeURIComponent(job)}/events`, { after, limit }), signal);
}

/** A line of the list: an event, or a run of steps folded into one. */
export type Line = { kind: "event"; event: JobEvent } | { kind: "steps"; events: JobEvent[] };

export function folded(events: readonly JobEvent[]): Line[] {
  const lines: Line[] = [];
  for (const event of events) {
    const last = lines.at(-1);
    if (event.type !== "metrics") lines.push({ kind: "event", event });
    else if (last?.kind === "steps") last.events.push(event);
    else lines.push({ kind: "steps", events: [event] });
  }
  return lines;
}

/** The step that an event tells of; null for those that tell of none. */
export function stepOf(event: JobEvent | undefined): number | null {
  const step = event?.data.step;
  return typeof step === "number" ? step : null;
}
