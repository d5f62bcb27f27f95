import { useSyncExternalStore } from "react";
import { useFormat } from "./format";

const TICK_MS = 10_000;

/** A time as how long ago it was, which goes on while it is looked at; the whole of it on hovering. */
export function When({ seconds }: { seconds: number }) {
  const format = useFormat();
  useSyncExternalStore(listen, () => ticks);
  return (
    <time className="when" dateTime={new Date(seconds * 1000).toISOString()} title={format.time(seconds)}>
      {format.ago(seconds)}
    </time>
  );
}

/** One clock for all of them; it rests while the page is not seen, and when there are none. */
let ticks = 0;
let clock: ReturnType<typeof setInterval> | undefined;
const listeners = new Set<() => void>();

function listen(listener: () => void): () => void {
  listeners.add(listener);
  clock ??= setInterval(tick, TICK_MS);
  return () => {
    listeners.delete(listener);
    if (listeners.size) return;
    clearInterval(clock);
    clock = undefined;
  };
}

function tick(): void {
  if (document.visibilityState !== "visible") return;
  ticks += 1;
  for (const listener of listeners) listener();
}
