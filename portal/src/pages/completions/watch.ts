import { type RefObject, useEffect, useLayoutEffect, useState } from "react";

const TICK_MS = 10_000;

/** How wide an element is, as it changes. */
export function useWidth(element: RefObject<HTMLElement | null>): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watched = element.current;
    if (!watched) return;
    setWidth(watched.clientWidth);
    const observer = new ResizeObserver(() => setWidth(watched.clientWidth));
    observer.observe(watched);
    return () => observer.disconnect();
  }, [element]);
  return width;
}

/** Draws the component again now and then, so that "a minute ago" becomes two. */
export function useTick(): void {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && tick((count) => count + 1), TICK_MS);
    return () => clearInterval(timer);
  }, []);
}
