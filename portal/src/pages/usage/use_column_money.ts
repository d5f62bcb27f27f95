import { useMemo } from "react";
import { useWords } from "../../i18n";

const LARGE_USD = 1000;

interface ColumnMoney {
  write: (usd: number) => string;
  /** The sum of what the rows show, so that adding them up gives what stands below them. */
  sum: string;
}

/** A column of dollars, all with the same digits: to the millionth, which is exact, but for large sums. */
export function useColumnMoney(rows: { cost_usd: number }[]): ColumnMoney {
  const { language } = useWords();
  return useMemo(() => {
    const all = rows.reduce((sum, row) => sum + row.cost_usd, 0);
    const digits = all >= LARGE_USD ? 2 : 6;
    const written = new Intl.NumberFormat(language, {
      style: "currency",
      currency: "USD",
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    });
    const units = rows.reduce((sum, row) => sum + Math.round(row.cost_usd * 10 ** digits), 0);
    return { write: (usd) => written.format(usd), sum: written.format(units / 10 ** digits) };
  }, [language, rows]);
}
