import { useFormat } from "./format";
import styles from "./interval.module.css";

interface IntervalProps {
  /** All from 0 to 1: what was found, and where the true share is to be looked for. */
  share: number;
  low: number;
  high: number;
  /** Large, for the figure that a page is about. */
  large?: boolean;
}

/** A share with its 95 % interval, in figures and drawn: the band is the interval, the mark in it what was found. */
export function Interval({ share, low, high, large = false }: IntervalProps) {
  const format = useFormat();
  const percent = (value: number) => `${value * 100}%`;
  return (
    <span className={styles.interval} data-large={large}>
      <span className={styles.figures}>
        <span className={styles.share}>{format.share(share)}</span>{" "}
        <span className={styles.bounds}>{`[${format.share(low)} – ${format.share(high)}]`}</span>
      </span>
      <span className={styles.bar} aria-hidden="true">
        <span className={styles.band} style={{ insetInlineStart: percent(low), width: percent(high - low) }} />
        <span className={styles.mark} style={{ insetInlineStart: percent(share) }} />
      </span>
    </span>
  );
}
