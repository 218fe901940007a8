using System;
using System.Collections.Generic;

namespace Zoo.Land
{
    public interface IAnimal { string Name(int times, string[] words); }
    public abstract class Animal : IAnimal, IDisposable
    {
        public abstract string Name(int times, string[] words);
        public void Dispose() { }
        protected virtual long Weigh(ref double scale, out bool ok, int[,] grid) { ok = true; return 0; }
        protected internal object Either() { return null; }
        internal static unsafe void* Raw(byte* p, IntPtr q) { return null; }
        private sealed class Cage
        {
            internal class Lock { public static List<Dictionary<string, Lock>> Keys() { return null; } }
        }
    }
    internal sealed class Box<T, U> : List<T>
    {
        public U Swap<V>(T first, V second, Box<V, U> third) { return default(U); }
        public static Box<int, string> Make(Func<T, bool>[] f, params object[] rest) { return null; }
    }
    public struct Point { public float X; }
    public enum Colour { Red }
}
class Plain { static Plain() { } static void Main() { } char C(sbyte a, ushort b, uint c, ulong d, UIntPtr e, short f) { return 'c'; } }
