// The code of pages, each loaded when it is first visited. While the server is away, it is waited for.

import { type ComponentType, lazy, useSyncExternalStore } from "react";

type Module = { default: ComponentType };

const LOOK_MS = 1000;

export const page = (load: () => Promise<Module>) => lazy(() => load().catch(whenBack));

/** Whether code of a page is awaited that the server could not be asked for. */
export const useCodeAwaited = (): boolean => useSyncExternalStore(listen, () => awaited);

/** A page that was refused by a server that is there is broken; else it is loaded with everything, once it answers. */
async function whenBack(error: unknown): Promise<never> {
  if (await isThere()) throw error;
  tell(true);
  while (!(await isThere())) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  // The browser remembers what could not be loaded, until the page is loaded anew.
  location.reload();
  return new Promise(() => {});
}

async function isThere(): Promise<boolean> {
  try {
    return (await fetch("/", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

let awaited = false;
const listeners = new Set<() => void>();

function listen(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(now: boolean): void {
  awaited = now;
  for (const listener of listeners) listener();
}
