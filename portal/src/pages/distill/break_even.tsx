// When the training has paid for itself, at the traffic that was seen.

import type { BreakEven } from "../../api/types";
import { useText } from "../../i18n";
import { Note, Stat, useFormat } from "../../ui";
import styles from "./distill.module.css";

export function Earning({ found }: { found: BreakEven }) {
  const t = useText();
  const { number, money, duration, day } = useFormat();
  // The server's days are those of UTC; at noon, it is the same day nearly everywhere.
  const dayOf = (date: string) => day(Date.parse(`${date}T12:00:00Z`) / 1000);
  const { teacher_microusd_per_day: teacher, student_microusd_per_day: student } = found;
  const names = found.teachers.join(", ");
  const days = found.break_even_days;
  return (
    <section className={styles.earning} aria-labelledby="earning">
      <h3 id="earning">{t("distill.break_even")}</h3>
      {days !== null && (
        <Stat
          label={t("distill.pays_off")}
          value={
            days * DAY_MS < SOON_MS
              ? t("distill.at_once")
              : days < 1
                ? duration(days * DAY_MS)
                : t("distill.days", { count: oneDigit(days) })
          }
          more={found.break_even_date && t("distill.on_day", { day: dayOf(found.break_even_date) })}
        />
      )}
      {found.reason && (
        <Note tone="warn">
          <span className="said" lang="en">
            {found.reason}
          </span>
        </Note>
      )}
      {found.calls > 0 && (
        <>
          <dl className={styles.bars}>
            <Bar
              label={t("distill.a_day_teacher", { names })}
              tone="teacher"
              value={teacher}
              most={Math.max(teacher, student)}
            />
            <Bar label={t("distill.a_day_student")} tone="student" value={student} most={Math.max(teacher, student)} />
          </dl>
          <p className="small quiet">
            {t("distill.traffic", {
              calls: number(Math.round(found.calls_per_day)),
              count: oneDigit(found.window.days),
              prompt: number(Math.round(found.tokens_per_call.prompt)),
              completion: number(Math.round(found.tokens_per_call.completion)),
              hosting: money(found.student_hosting_microusd_per_day),
            })}
          </p>
        </>
      )}
    </section>
  );
}

interface BarProps {
  label: string;
  tone: "teacher" | "student";
  value: number;
  most: number;
}

function Bar({ label, tone, value, most }: BarProps) {
  const { money } = useFormat();
  return (
    <div className={styles.bar}>
      <dt className="small">{label}</dt>
      <dd>
        <span className={styles.barDrawn} data-tone={tone} style={{ width: `${most ? (70 * value) / most : 0}%` }} />
        <span className="number">{money(value)}</span>
      </dd>
    </div>
  );
}

const DAY_MS = 86_400_000;
const SOON_MS = 60_000;
const oneDigit = (value: number): number => Math.round(10 * value) / 10;
