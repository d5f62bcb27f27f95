import type { Deployment } from "../../api/types";
import { useText } from "../../i18n";
import { Stat, useFormat } from "../../ui";
import { HOURS_A_MONTH } from "./deploying";
import styles from "./deployments.module.css";

/** What all deployments cost at this moment, would in a month, and did in the window: nothing may surprise. */
export function Bill({ deployments, days }: { deployments: Deployment[]; days: number }) {
  const t = useText();
  const { money, usd } = useFormat();
  const students = deployments.filter((one) => one.base !== null);
  const loaded = students.filter((one) => one.loaded);
  const hourly = hourlyUsd(loaded);
  const calls = sum(deployments, (one) => one.calls);
  return (
    <section className={`card ${styles.bill}`} aria-label={t("deployments.bill")}>
      <Stat
        label={t("deployments.now")}
        value={usd(hourly)}
        more={t("deployments.loaded_count", { loaded: loaded.length, all: students.length })}
      />
      <Stat
        label={t("deployments.left_on")}
        value={usd(hourly * HOURS_A_MONTH)}
        more={t("deployments.left_on_more", { price: usd(hourlyUsd(students) * HOURS_A_MONTH) })}
      />
      <Stat
        label={t("deployments.hosting_window", { count: days })}
        value={money(sum(deployments, (one) => one.hosting_microusd))}
        more={t("deployments.hours", { hours: hoursOf(sum(deployments, (one) => one.hosted_seconds)) })}
      />
      <Stat
        label={t("deployments.calls_window", { count: days })}
        value={money(sum(deployments, (one) => one.cost_microusd))}
        more={t("deployments.calls", { count: calls })}
      />
    </section>
  );
}

/** Two deployments of one model share its place in memory, and pay for it once. */
function hourlyUsd(students: Deployment[]): number {
  const models = new Map(students.map((one) => [one.model, one.usd_per_hosting_hour]));
  return sum([...models.values()], (price) => price);
}

/** Hours with as many digits as they need. */
export function hoursOf(seconds: number): number {
  const hours = seconds / 3600;
  return hours < 10 ? Math.round(hours * 100) / 100 : Math.round(hours);
}

function sum<T>(items: T[], part: (item: T) => number): number {
  return items.reduce((total, item) => total + part(item), 0);
}
