// Amounts per day, stacked: money, tokens, calls. Days are of UTC, as the ledger's are.

import { type KeyboardEvent, useState } from "react";
import { useWords } from "../i18n";
import styles from "./day_bars.module.css";

export type BarColor = "teacher" | "student" | "1" | "2" | "3" | "4" | "5" | "rest";

export interface Stack {
  label: string;
  color: BarColor;
  /** One for each day. */
  values: number[];
}

interface DayBarsProps {
  /** What the picture shows, for those who cannot see it. */
  label: string;
  /** The first second of each day, rising and without gaps. */
  days: number[];
  stacks: Stack[];
  format: (value: number) => string;
  height?: number;
}

interface Bar {
  from: number;
  until: number;
  values: number[];
  total: number;
}

export const DAY_SECONDS = 86_400;
const MOST_BARS = 92;
const LINES = 4;
const DATES = 5;

export function DayBars({ label, days, stacks, format, height = 200 }: DayBarsProps) {
  const [shown, setShown] = useState<number | null>(null);
  const write = useDates();
  const bars = barsOf(days, stacks);
  const top = ceiling(Math.max(0, ...bars.map((bar) => bar.total)));
  const lines = Array.from({ length: LINES + 1 }, (_, at) => (top * at) / LINES);
  const chosen = shown === null ? undefined : bars[shown];
  const move = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    setShown((at) => Math.min(bars.length - 1, Math.max(0, (at ?? (step > 0 ? -1 : bars.length)) + step)));
  };
  return (
    <figure className={styles.figure}>
      <div className={styles.head}>
        <ul className={styles.legend}>
          {stacks.map((stack) => (
            <li key={stack.label}>
              <span className={`${styles.swatch} ${styles.colored}`} data-color={stack.color} />
              <span className="said">{stack.label}</span>
            </li>
          ))}
        </ul>
        <figcaption className={styles.told} aria-live="polite">
          {chosen && told(chosen, stacks, write, format)}
        </figcaption>
      </div>
      <div
        className={styles.plot}
        role="img"
        aria-label={label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys read one day after another
        tabIndex={0}
        onKeyDown={move}
        onBlur={() => setShown(null)}
      >
        <div className={styles.scale} style={{ height }}>
          <div className={styles.widest}>{format(top)}</div>
          {lines.map((line) => (
            <span key={line} style={{ bottom: `${top ? (100 * line) / top : 0}%` }}>
              {format(line)}
            </span>
          ))}
        </div>
        <div className={styles.area} style={{ height }}>
          {lines.slice(1).map((line) => (
            <div key={line} className={styles.line} style={{ bottom: `${(100 * line) / top}%` }} />
          ))}
          {bars.map((bar, at) => (
            <div
              key={bar.from}
              className={styles.day}
              data-shown={shown === at}
              onPointerEnter={() => setShown(at)}
              onPointerLeave={() => setShown(null)}
            >
              {stacks.map((stack, place) => {
                const value = bar.values[place] ?? 0;
                if (value <= 0) return null;
                return (
                  <div
                    key={stack.label}
                    className={`${styles.part} ${styles.colored}`}
                    data-color={stack.color}
                    style={{ height: `${(100 * value) / top}%` }}
                  />
                );
              })}
            </div>
          ))}
        </div>
        <div className={styles.dates} data-each={bars.length <= DATES}>
          {datesOf(bars).map((bar) => (
            <span key={bar.from}>{write(bar.from)}</span>
          ))}
        </div>
      </div>
    </figure>
  );
}

function useDates(): (seconds: number) => string {
  const { language } = useWords();
  const written = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", timeZone: "UTC" });
  return (seconds) => written.format(seconds * 1000);
}

/** "Nov 23 · Teacher $1.20 · Student $0.03". */
function told(
  bar: Bar,
  stacks: Stack[],
  write: (seconds: number) => string,
  format: (value: number) => string,
): string {
  const last = bar.until - DAY_SECONDS;
  const date = last > bar.from ? `${write(bar.from)} – ${write(last)}` : write(bar.from);
  const parts = stacks.map((stack, place) => `${stack.label} ${format(bar.values[place] ?? 0)}`);
  return [date, ...parts].join(" · ");
}

/** A bar a day; of more days than can be told apart, a bar for several. */
function barsOf(days: number[], stacks: Stack[]): Bar[] {
  const each = Math.max(1, Math.ceil(days.length / MOST_BARS));
  const bars: Bar[] = [];
  for (let at = 0; at < days.length; at += each) {
    const from = days[at] ?? 0;
    const until = (days[Math.min(at + each, days.length) - 1] ?? from) + DAY_SECONDS;
    const values = stacks.map((stack) => sum(stack.values.slice(at, at + each)));
    bars.push({ from, until, values, total: sum(values) });
  }
  return bars;
}

function datesOf(bars: Bar[]): Bar[] {
  if (bars.length <= DATES) return bars;
  const step = (bars.length - 1) / (DATES - 1);
  return Array.from({ length: DATES }, (_, at) => bars[Math.round(at * step)]).filter((bar) => bar !== undefined);
}

/** The next round number that is not below the value. */
function ceiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const found = [1, 2, 4, 5, 8, 10].find((round) => round * power >= value) ?? 10;
  return found * power;
}

const sum = (values: number[]): number => values.reduce((all, value) => all + value, 0);
