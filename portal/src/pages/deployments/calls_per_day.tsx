import { useText } from "../../i18n";
import { DAY_SECONDS, useFormat } from "../../ui";
import styles from "./deployments.module.css";

interface CallsPerDayProps {
  days: { day: string; calls: number }[];
  window: { since: number; until: number };
  label: string;
}

const HEIGHT = 40;
const LEAST = 2;

/** One small bar a day; days without calls are there too, as gaps. */
export function CallsPerDay({ days, window, label }: CallsPerDayProps) {
  const t = useText();
  const { day: written } = useFormat();
  const calls = new Map(days.map((one) => [one.day, one.calls]));
  const all = daysOf(window);
  const most = Math.max(1, ...all.map((day) => calls.get(day) ?? 0));
  const last = all.at(-1) ?? "";
  if (!days.some((one) => one.calls > 0)) return null;
  return (
    <figure className={styles.bars}>
      <svg viewBox={`0 0 ${all.length * 10} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        {all.map((day, at) => {
          const count = calls.get(day) ?? 0;
          const height = count ? Math.max(LEAST, (count / most) * HEIGHT) : 1;
          return (
            <rect
              key={day}
              x={at * 10 + 1}
              width={8}
              y={HEIGHT - height}
              height={height}
              data-none={count ? undefined : ""}
            >
              <title>{t("deployments.day_calls", { count, day: written(secondsOf(day)) })}</title>
            </rect>
          );
        })}
      </svg>
      <figcaption className="spread small quiet">
        <span>{written(secondsOf(all[0] ?? last))}</span>
        <span>{written(secondsOf(last))}</span>
      </figcaption>
    </figure>
  );
}

/** The days (UTC, as the server counts them) that the window touches. */
function daysOf({ since, until }: { since: number; until: number }): string[] {
  const first = Math.floor(since / DAY_SECONDS);
  const count = Math.floor(until / DAY_SECONDS) - first + 1;
  return Array.from({ length: count }, (_, at) =>
    new Date((first + at) * DAY_SECONDS * 1000).toISOString().slice(0, 10),
  );
}

/** Noon, so that every time zone writes the same day. */
const secondsOf = (day: string): number => Date.parse(`${day}T12:00:00Z`) / 1000;
