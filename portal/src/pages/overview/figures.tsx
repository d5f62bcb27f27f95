import type { ReactNode } from "react";
import { Link } from "wouter";
import type { Overview } from "../../api/types";
import { useText } from "../../i18n";
import { Interval, useFormat } from "../../ui";
import styles from "./overview.module.css";

/** The answers to what one comes for, each with a way to what is behind it. */
export function Figures({ overview }: { overview: Overview }) {
  return (
    <section className={styles.figures}>
      <TeacherCost overview={overview} />
      <StudentCost overview={overview} />
      <Agreement overview={overview} />
      <div className={styles.counts}>
        <Stored overview={overview} />
        <Running overview={overview} />
      </div>
    </section>
  );
}

interface FigureProps {
  label: string;
  value: ReactNode;
  children: ReactNode;
  tone?: "teacher" | "student";
}

function Figure({ label, value, children, tone }: FigureProps) {
  return (
    <div className={`card ${styles.figure}`} data-tone={tone}>
      <h2 className={styles.label}>{label}</h2>
      <div className={styles.value}>{value}</div>
      <div className="small quiet">{children}</div>
    </div>
  );
}

function TeacherCost({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  const calls = sum(overview.teachers.map((teacher) => teacher.calls));
  return (
    <Figure
      tone="teacher"
      label={t("overview.teacher_cost")}
      value={format.money(sum(overview.teachers.map((teacher) => teacher.cost_microusd)))}
    >
      {t("overview.teacher_calls", { count: calls })} <Link href="/usage">{t("overview.see_usage")}</Link>
    </Figure>
  );
}

function StudentCost({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  const would = overview.would_have;
  if (!would) {
    return (
      <Figure tone="student" label={t("overview.student_cost")} value="–">
        {t("overview.student_unknown")} <Link href="/distill">{t("overview.distill")}</Link>
      </Figure>
    );
  }
  const share = would.teacher_microusd > 0 ? would.saved_microusd / would.teacher_microusd : 0;
  return (
    <Figure tone="student" label={t("overview.student_cost")} value={format.money(would.student_microusd)}>
      <span className="said">
        {t(share >= 0 ? "overview.student_less" : "overview.student_more", {
          share: format.share(Math.abs(share)),
          student: would.student,
        })}
      </span>
      <details className={styles.how}>
        <summary>{t("overview.how")}</summary>
        <p className="said">
          {t("overview.how_text", {
            teacher: would.teacher,
            student: would.student,
            before: format.money(would.teacher_microusd),
            after: format.money(would.student_microusd),
            count: would.calls,
            day: format.day(would.since),
          })}
        </p>
      </details>
    </Figure>
  );
}

function Agreement({ overview }: { overview: Overview }) {
  const t = useText();
  const { agreement } = overview;
  if (!agreement) {
    return (
      <Figure label={t("overview.agreement")} value="–">
        {t("overview.agreement_unknown")} <Link href="/evals?compare=new">{t("overview.compare")}</Link>
      </Figure>
    );
  }
  return (
    <Figure
      label={t("overview.agreement")}
      value={<Interval large share={agreement.rate} low={agreement.low} high={agreement.high} />}
    >
      <span className="said">
        {t("overview.agreement_of", { model: agreement.model, teacher: agreement.teacher, count: agreement.items })}
      </span>{" "}
      <Link href={`/evals/${encodeURIComponent(agreement.eval)}`}>{t("overview.see_report")}</Link>
    </Figure>
  );
}

function Stored({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  const number = format.number(overview.stored);
  return (
    <Figure label={t("overview.stored")} value={overview.stored_at_least ? t("overview.at_least", { number }) : number}>
      <Link href="/completions">{t("overview.see_stored")}</Link>
    </Figure>
  );
}

function Running({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  return (
    <Figure label={t("overview.running")} value={format.number(overview.jobs_running)}>
      <Link href="/jobs">{t("overview.see_jobs")}</Link>
    </Figure>
  );
}

const sum = (values: number[]): number => values.reduce((all, value) => all + value, 0);
