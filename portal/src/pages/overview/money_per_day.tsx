import { Link } from "wouter";
import type { Overview } from "../../api/types";
import { useText } from "../../i18n";
import { DAY_SECONDS, DayBars, useFormat } from "../../ui";

/** What teachers and students cost on each day. */
export function MoneyPerDay({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  const days = daysOf(overview.window);
  const found = new Map(overview.per_day.map((one) => [Date.parse(`${one.day}T00:00:00Z`) / 1000, one]));
  return (
    <section className="card stack">
      <div className="spread">
        <h2>{t("overview.per_day")}</h2>
        <span className="small quiet">
          {t("overview.spent", {
            training: format.money(overview.training_microusd),
            evaluation: format.money(overview.evaluation_microusd),
          })}{" "}
          <Link href="/usage">{t("overview.see_usage")}</Link>
        </span>
      </div>
      <DayBars
        label={t("overview.per_day")}
        days={days}
        format={format.money}
        stacks={[
          {
            label: t("overview.teachers"),
            color: "teacher",
            values: days.map((day) => found.get(day)?.teacher_microusd ?? 0),
          },
          {
            label: t("overview.students"),
            color: "student",
            values: days.map((day) => found.get(day)?.student_microusd ?? 0),
          },
        ]}
      />
    </section>
  );
}

function daysOf({ since, until }: Overview["window"]): number[] {
  const first = Math.floor(since / DAY_SECONDS);
  const last = Math.floor(until / DAY_SECONDS);
  return Array.from({ length: Math.max(1, last - first + 1) }, (_, at) => (first + at) * DAY_SECONDS);
}
